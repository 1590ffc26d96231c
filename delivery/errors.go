package delivery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What can go wrong, to be matched with errors.Is. A context's own errors are
// passed on bare.
var (
	// ErrConfig: a configuration can't be used; the text names every field.
	ErrConfig = errors.New("delivery: invalid config")
	// ErrInvalid: a message can't be sent as it is. See InvalidError.
	ErrInvalid = errors.New("delivery: invalid message")
	// ErrTooLarge: a message, or a part of it, is over a limit. See TooLargeError.
	ErrTooLarge = errors.New("delivery: too large")
	// ErrNotSent: nothing is wrong with this message, but another of the same
	// call is invalid, so none was sent.
	ErrNotSent = errors.New("delivery: not sent, because another message of the call is invalid")
	// ErrUnroutable: the transport has no queue for the message.
	ErrUnroutable = errors.New("delivery: no queue takes the message")
	// ErrRefused: the transport said no: its queue is full, or it failed inside.
	ErrRefused = errors.New("delivery: refused by the transport, its queue may be full")
	// ErrBlocked: the transport takes nothing for now (out of memory or disk),
	// and the deadline came first.
	ErrBlocked = errors.New("delivery: transport is blocked")
	// ErrOutcomeUnknown: the message may or may not be durable. Publishing it
	// again with the same ID is safe.
	ErrOutcomeUnknown = errors.New("delivery: outcome unknown")
	// ErrDuplicate: not sent, because a message with the same idempotency key
	// was published before. See DuplicateError.
	ErrDuplicate = errors.New("delivery: duplicate")
	// ErrInProgress: not sent, because a message with the same idempotency key
	// is being published by someone else right now. Try again a little later.
	ErrInProgress = errors.New("delivery: a message with the same idempotency key is being published")
	// ErrUnsupported: the transport lacks the ability that this needs.
	ErrUnsupported = errors.New("delivery: not supported by the transport")
	// ErrSwitchedOff: the config switches off what was asked for.
	ErrSwitchedOff = errors.New("delivery: switched off")
	// ErrStoreDown: the message store could not be asked, or failed inside.
	ErrStoreDown = errors.New("delivery: message store failed")
	// ErrNotFound: there is no record of the message.
	ErrNotFound = errors.New("delivery: no such message")
	// ErrExists: there is a record with the same ID already. Stores say so; to
	// publish a message again is no error.
	ErrExists = errors.New("delivery: a message with this ID exists")
	// ErrLate: an update is older than what the record knows. See LateError.
	ErrLate = errors.New("delivery: late update")
	// ErrNotAwaited: an acknowledgment of a message that was cancelled, or failed
	// without ever having been sent.
	ErrNotAwaited = errors.New("delivery: no acknowledgment of the message is awaited")
	// ErrQuery: a query has a field that is out of range; the text names it.
	ErrQuery = errors.New("delivery: invalid query")
	// ErrCursor: a cursor is damaged, or belongs to a query with another filter
	// or order. Begin with the first page again.
	ErrCursor = errors.New("delivery: invalid cursor")
	// ErrMalformed: what was received is no message. See MalformedError.
	ErrMalformed = errors.New("delivery: malformed message")
	// ErrClosed: the thing was closed before.
	ErrClosed = errors.New("delivery: closed")
	// ErrSettled: the incoming was acked or nacked before.
	ErrSettled = errors.New("delivery: already settled")
	// ErrStale: the connection that the incoming came by is gone, so it will
	// come again.
	ErrStale = errors.New("delivery: stale, will be redelivered")
)

// InvalidError says which field of a message is at fault. It is ErrInvalid.
type InvalidError struct {
	Field   string
	Problem string
}

func (e *InvalidError) Error() string {
	return "delivery: message " + e.Field + " " + e.Problem
}

// Is makes it ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// TooLargeError says which part of a message is over which limit, in bytes. It
// is both ErrTooLarge and ErrInvalid.
type TooLargeError struct {
	Field string
	Size  int
	Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("delivery: message %s has %d bytes, at most %d are allowed", e.Field, e.Size, e.Limit)
}

// Is makes it ErrTooLarge and ErrInvalid.
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge || target == ErrInvalid }

// DuplicateError says which message was published before with the same key. It
// is ErrDuplicate.
type DuplicateError struct {
	// Of is the ID of the message that was published.
	Of string
}

func (e *DuplicateError) Error() string {
	return "delivery: duplicate of message " + e.Of
}

// Is makes it ErrDuplicate.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// LateError says what the record knew already. It is ErrLate.
type LateError struct {
	ID         string
	Status     Status
	Generation int
	RetryCount int
}

func (e *LateError) Error() string {
	return fmt.Sprintf("delivery: late update: message %s is %s already (generation %d, %d failed attempts)", e.ID, e.Status, e.Generation, e.RetryCount)
}

// Is makes it ErrLate.
func (e *LateError) Is(target error) bool { return target == ErrLate }

// MalformedError carries what could not be decoded. It is ErrMalformed.
type MalformedError struct {
	// Problem says what is wrong with it.
	Problem string
	// Raw is the body as it came.
	Raw []byte
	// Envelope holds what could be read.
	Envelope Envelope
}

func (e *MalformedError) Error() string { return "delivery: malformed message: " + e.Problem }

// Is makes it ErrMalformed.
func (e *MalformedError) Is(target error) bool { return target == ErrMalformed }

// Result is what became of one message of a call.
type Result struct {
	// ID of the message, made by Publish if it had none.
	ID string
	// Err is nil when the message was dealt with.
	Err error
}

// ResultsError tells that some messages of a call failed, and what became of each.
// errors.Is and errors.As find any of their errors through it.
type ResultsError struct {
	// Results has one entry for each message, in the call's order.
	Results []Result
}

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
	return fmt.Sprintf("delivery: %d of %d messages failed%s", failed, len(e.Results), text.String())
}

// Unwrap returns the errors of the messages that failed.
func (e *ResultsError) Unwrap() []error {
	var errs []error
	for _, result := range e.Results {
		if result.Err != nil {
			errs = append(errs, result.Err)
		}
	}
	return errs
}

// resultsError pairs IDs with what became of them. It is nil when all went well.
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

// faultOf is what a part that was built without an error return has to say
// about its own config.
func faultOf(field string, part any) error {
	if faulty, ok := part.(interface{ Err() error }); ok {
		if err := faulty.Err(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrConfig, field, err)
		}
	}
	return nil
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
