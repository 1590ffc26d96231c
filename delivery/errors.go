package delivery

import (
	"errors"
	"fmt"
)

// What can go wrong, to be matched with errors.Is. A context's own errors are
// passed on, bare or together with what a store or transport is known to suffer from.
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
	// ErrUnsupported: the transport lacks the ability that this needs, or the config
	// a part; the text names it.
	ErrUnsupported = errors.New("delivery: not supported")
	// ErrSwitchedOff: the config switches off what was asked for.
	ErrSwitchedOff = errors.New("delivery: switched off")
	// ErrStoreDown: the message store could not be asked, or failed inside.
	ErrStoreDown = errors.New("delivery: message store failed")
	// ErrNotFound: there is no record of the message.
	ErrNotFound = errors.New("delivery: no such message")
	// ErrExists: there is a record with the same ID already. Stores say so; to
	// publish a message again is no error.
	ErrExists = errors.New("delivery: a message with this ID exists")
	// ErrConflict: not sent, because another message was published with this ID. See
	// ConflictError.
	ErrConflict = errors.New("delivery: another message has this ID")
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

// ConflictError says that a message has the ID of another one, which has a record, and
// what differs. It is ErrConflict.
type ConflictError struct {
	ID string
	// Field is the first field of Message that differs.
	Field string
}

func (e *ConflictError) Error() string {
	return "delivery: another message has the ID " + e.ID + ": its " + e.Field + " differs"
}

// Is makes it ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

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

// FaultReporter is a part whose constructor returns no error, so that the part can
// stand in a config literal. It tells by Err what is wrong with its own config, nil
// if nothing, and fails with that error whatever it is asked to do. Constructors
// that are given one report its fault as their own.
type FaultReporter interface {
	Err() error
}

// faultOf is the fault of what was given as field, if it has one.
func faultOf(field string, part any) error {
	if reporter, ok := abilityOf[FaultReporter](part); ok {
		if err := reporter.Err(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrConfig, field, err)
		}
	}
	return nil
}
