package idempotency

import (
	"context"
	"errors"
)

// What can go wrong, to be matched with errors.Is. A context's own errors are
// passed on bare, or together with what the store was known to suffer from.
var (
	// ErrConfig: a configuration can't be used; the text names every field.
	ErrConfig = errors.New("idempotency: invalid config")
	// ErrInvalid: an argument can't be used.
	ErrInvalid = errors.New("idempotency: invalid argument")
	// ErrBusy: another holds the key right now. Come back later, because the work
	// may still fail there.
	ErrBusy = errors.New("idempotency: in progress elsewhere")
	// ErrDuplicate: there is nothing left to do. See DuplicateError.
	ErrDuplicate = errors.New("idempotency: duplicate")
	// ErrLost: the lease is not held, or not any more. It is also the cause of the
	// context of a claim that has lost its lease.
	ErrLost = errors.New("idempotency: lease lost")
	// ErrSettled: the claim was completed, scheduled or released before. It is also
	// the cause of the context of such a claim.
	ErrSettled = errors.New("idempotency: claim is settled")
	// ErrUnrecorded: the work succeeded, but its key could not be completed, so that
	// it may run once more.
	ErrUnrecorded = errors.New("idempotency: work succeeded but is not recorded as done")
	// ErrUnavailable: the store could not be asked. See UnavailableError.
	ErrUnavailable = errors.New("idempotency: store unavailable")
	// ErrFull: the store has no room for another key and none that it may forget.
	ErrFull = errors.New("idempotency: store is full")
	// ErrClosed: the store was closed before.
	ErrClosed = errors.New("idempotency: store is closed")
)

// DuplicateError says why there is nothing left to do. It matches ErrDuplicate.
type DuplicateError struct {
	// Holder is the token that completed the work or scheduled the later
	// attempt; empty when the store can't tell.
	Holder string
	// Of is the holder that was given to Guard.Hold with that token; empty when
	// none was, or the store can't tell.
	Of string
	// Stale is set when the work is not done, but a later attempt of it is scheduled,
	// so that this one is an old copy.
	Stale bool
}

func (e *DuplicateError) Error() string {
	if e.Stale {
		return "idempotency: duplicate: a later attempt is scheduled"
	}
	return "idempotency: duplicate: done before"
}

// Is makes errors.Is(e, ErrDuplicate) true.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// UnavailableError says which step the store could not be asked for, and why. It
// matches ErrUnavailable.
type UnavailableError struct {
	// Op is the step: claim, renew, complete, schedule, release, or a store's
	// own word.
	Op string
	// Err is the store's error. It never matches a context's error: the caller's is
	// no UnavailableError, and that of a timeout within the store must not look like
	// the caller's.
	Err error
}

func (e *UnavailableError) Error() string {
	return ErrUnavailable.Error() + ": " + e.Op + ": " + e.Err.Error()
}

// Is makes errors.Is(e, ErrUnavailable) true.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns Err.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Unavailable turns the error of a store's driver into one that the contract of Store
// allows, for authors of stores. A nil err stays nil. Where ctx has ended and err
// comes from that, the result matches ctx's own error: it is err if err does, which
// may tell more, and otherwise ctx's error, bare. An error that the contract knows
// stays as it is. Anything else becomes an *UnavailableError.
func Unavailable(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	for _, known := range []error{ErrUnavailable, ErrInvalid, ErrLost} {
		if errors.Is(err, known) {
			return err
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		switch ended := ctx.Err(); {
		case ended == nil:
		case errors.Is(err, ended):
			return err
		default:
			return ended
		}
		err = errors.New(err.Error())
	}
	return &UnavailableError{Op: op, Err: err}
}
