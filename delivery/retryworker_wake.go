package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// wakeBatch is how many records are woken together.
const wakeBatch = 500

// WakeFilter picks messages that wait in the store. All fields that are set must fit.
type WakeFilter struct {
	// Recipient: the message has the same.
	Recipient string
	// Type: the message has the same.
	Type string
	// All picks every message of the queue. It goes alone, so that nobody wakes all of
	// them by an empty filter.
	All bool
}

func (f *WakeFilter) validate() error {
	one := f.Recipient != "" || f.Type != ""
	switch {
	case !one && !f.All:
		return fmt.Errorf("%w: WakeFilter is empty, want Recipient, Type or All", ErrQuery)
	case one && f.All:
		return fmt.Errorf("%w: WakeFilter.All is set beside Recipient or Type, want one or the other", ErrQuery)
	}
	return nil
}

// Wake makes messages of the worker's queue due now that wait in the store for their
// next attempt: because their handler put them off by retry.Later, an attempt failed, or
// a breaker of KeyBreakers was open. It is for when the host learns that what they wait
// for is there: the phone is on again. Nothing is counted. It returns how many it woke,
// also with an error, after which it may be called again.
//
// They become due one microsecond after another, in the order of their CreatedAt, so
// that among messages of the same priority this is the order in which they are sent.
// Those whose NotBefore is yet to come wait on, and so does what a worker is just
// sending, and what does not wait in the store: in the transport without a store or with
// one of RecordsOnly, in the hand of a consumer in order or for up to a second, and what
// a publisher has scheduled and never sent.
//
// A worker of the same process begins at once if the store is a StoreWatcher, others
// within RetryWorkerConfig.ScanInterval. Wake itself needs no Run, and may be called by
// any number of goroutines and processes at once. It reads and changes records in
// batches of 500; with a Recipient it reads that one's records, else what waits.
//
// An empty filter, or All beside another field, is ErrQuery. A failure of the store
// matches ErrStoreDown or is what the store says, and ctx's error is passed on.
func (w *RetryWorker) Wake(ctx context.Context, filter WakeFilter) (woken int, err error) {
	if w == nil || w.store == nil {
		return 0, fmt.Errorf("%w: RetryWorker was not made by NewRetryWorker", ErrConfig)
	}
	if err := filter.validate(); err != nil {
		return 0, err
	}
	query := RecordQuery{
		RecordFilter: RecordFilter{Queue: w.config.Queue, Statuses: []Status{StatusRetrying}, Recipient: filter.Recipient, Type: filter.Type},
		Order:        OldestFirst, Limit: wakeBatch,
	}
	defer func() {
		if woken > 0 {
			w.config.Logger.LogAttrs(ctx, slog.LevelInfo, "messages woken", slog.String("queue", w.config.Queue), slog.Int("count", woken))
		}
	}()
	now := microseconds(time.Now())
	due := now
	for {
		page, err := w.listWaiting(ctx, query)
		if err != nil {
			return woken, err
		}
		updates := make([]Update, 0, len(page.Records))
		for i := range page.Records {
			if record := &page.Records[i]; !record.NotBefore.After(now) && record.DueAt.After(due) && record.ClaimedBy == "" {
				updates = append(updates, record.wake(now, due))
				due = due.Add(time.Microsecond)
			}
		}
		n, err := w.wake(ctx, updates)
		woken += n
		if err != nil || page.Next == "" {
			return woken, err
		}
		query.Cursor = page.Next
	}
}

func (w *RetryWorker) listWaiting(ctx context.Context, query RecordQuery) (RecordPage, error) {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	page, err := w.store.List(limited, query)
	return page, storeHangs(ctx, err)
}

// storeHangs is err, the outcome of what had settleTimeout. The end of that is the
// store's failure, and no deadline of the caller's.
func storeHangs(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w: no answer within %s", ErrStoreDown, settleTimeout)
	}
	return err
}

// wake carries out updates, and returns how many there was a record for that waited. Of
// the others something else has become meanwhile.
func (w *RetryWorker) wake(ctx context.Context, updates []Update) (woken int, err error) {
	if len(updates) == 0 {
		return 0, ctx.Err()
	}
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	_, errs := updateEach(limited, w.store, updates...)
	for _, failure := range errs {
		switch {
		case failure == nil:
			woken++
		case errors.Is(failure, ErrLate), errors.Is(failure, ErrNotFound):
		case err == nil:
			err = storeHangs(ctx, failure)
		}
	}
	return woken, err
}

// wake is the update by which a message that waits is due at a time.
func (r *Record) wake(now, due time.Time) Update {
	return Update{
		ID: r.ID, Status: StatusRetrying, Generation: r.Generation, RetryCount: r.RetryCount, At: now, DueAt: due, OnlyIfWaiting: true,
	}
}
