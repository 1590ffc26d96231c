package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// lastFault is why the database can't be used, as far as the last transactions have
// found out. A caller whose ctx ends is told of it: otherwise all that it learns is
// that it has waited for too long.
type lastFault struct{ err atomic.Pointer[error] }

// note keeps the outcome of a transaction, or of a try to begin one. What is the
// matter with single rows says nothing to others.
func (l *lastFault) note(d *dialect, err error) {
	if err == nil {
		if l.err.Load() != nil {
			l.err.Store(nil)
		}
		return
	}
	fault := err // err itself does not go to the heap, which every success would pay for
	switch causeOf(err) {
	case connectionLost, noAnswer, readOnly, diskFull, denied:
		l.err.Store(&fault)
	case locked:
		if d.oneWriter {
			l.err.Store(&fault)
		}
	case unknown, transient, refusedValues:
	}
}

// load is the fault, or nil when none is known.
func (l *lastFault) load() error {
	if fault := l.err.Load(); fault != nil {
		return *fault
	}
	return nil
}

// withFault is err, the outcome of a call. If that is the error of the caller's ctx,
// it comes together with the fault, unless that is nil.
func withFault(ctx context.Context, doing string, err, fault error) error {
	ended := contextError(ctx)
	if ended == nil || fault == nil || !errors.Is(err, ended) {
		return err
	}
	return fmt.Errorf("%w: %w", ended, &DatabaseError{Doing: doing, Err: fault})
}
