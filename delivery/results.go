package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Result is what became of one message, or one dead letter, of a call.
type Result struct {
	// ID of the message, made by Publish if it had none, or of the dead letter.
	ID string
	// Err is nil when it was dealt with.
	Err error
}

// ResultsError says that some messages, or dead letters, of a call failed, and
// what became of each. errors.Is and errors.As find the error of any of them
// through it.
type ResultsError struct {
	// Results has one entry for each message of the call, in the call's order.
	Results []Result
}

// NewResultsError pairs each of ids with the error of the same index in errs,
// which must be as long. It returns nil when all of errs are nil, and a
// *ResultsError otherwise. It is for code that answers for several messages, as
// Publisher.Publish and dlq.Manager do.
func NewResultsError(ids []string, errs []error) error {
	return resultsError(len(ids), func(i int) string { return ids[i] }, errs)
}

// Error names the first errors with their index in the call. It has no prefix
// of its own, because each of these errors says which package it comes from.
func (e *ResultsError) Error() string {
	const shown = 3
	var text strings.Builder
	failed := 0
	for i, result := range e.Results {
		if result.Err == nil {
			continue
		}
		if failed++; failed <= shown {
			fmt.Fprintf(&text, "; [%d] %s: %v", i, result.ID, result.Err)
		}
	}
	if failed > shown {
		fmt.Fprintf(&text, "; and %d more", failed-shown)
	}
	return fmt.Sprintf("%d of %d failed%s", failed, len(e.Results), text.String())
}

// Unwrap returns the errors of those that failed.
func (e *ResultsError) Unwrap() []error {
	var errs []error
	for _, result := range e.Results {
		if result.Err != nil {
			errs = append(errs, result.Err)
		}
	}
	return errs
}

// resultsError is NewResultsError where the IDs are not in a slice of their
// own.
func resultsError(n int, id func(i int) string, errs []error) error {
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	results := make([]Result, n)
	for i := range results {
		results[i] = Result{ID: id(i), Err: errs[i]}
	}
	return &ResultsError{Results: results}
}

// publishError is the error of a call that publishes a batch.
func publishError(batch []Envelope, errs []error) error {
	return resultsError(len(batch), func(i int) string { return batch[i].ID }, errs)
}

// eachOf is errs with one place for each of n. A wrong count tells nothing of
// any of them.
func eachOf(errs []error, n int) []error {
	if len(errs) == n {
		return errs
	}
	each := make([]error, n)
	if len(errs) > 0 {
		for i := range each {
			each[i] = fmt.Errorf("%w: %d results for %d messages", ErrOutcomeUnknown, len(errs), n)
		}
	}
	return each
}

// first is the error of a call for one.
func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

// getEach is Store.Get with a record and an error for each of ids, however many the
// store returns. Where it returns no record for each, that is an error of all.
func getEach(ctx context.Context, store Store, ids ...string) ([]Record, []error) {
	records, errs := store.Get(ctx, ids...)
	if len(records) != len(ids) {
		if len(errs) != len(ids) || slices.Contains(errs, nil) {
			err := fmt.Errorf("%w: it returned %d records for %d messages", ErrStoreDown, len(records), len(ids))
			errs = slices.Repeat([]error{err}, len(ids))
		}
		return make([]Record, len(ids)), errs
	}
	return records, eachOf(errs, len(ids))
}

// updateEach is Store.Update with a progress and an error for each of updates, however
// many the store returns.
func updateEach(ctx context.Context, store Store, updates ...Update) ([]Progress, []error) {
	progress, errs := store.Update(ctx, updates...)
	if len(progress) != len(updates) {
		progress = make([]Progress, len(updates))
	}
	return progress, eachOf(errs, len(updates))
}
