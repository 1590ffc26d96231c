package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// lastFault is what has kept Redis from being asked, until it answers again. A caller
// whose context ends is told of it: otherwise all that it learns is that it has waited
// for too long.
type lastFault struct{ err atomic.Pointer[error] }

// note keeps how a question went. An answer of Redis's is no fault, whatever it says.
func (l *lastFault) note(err error) {
	switch {
	case err != nil && !isReply(err):
		fault := err // err itself does not go to the heap, which every answer would pay for
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			fault = errors.New(err.Error()) // which was not the caller's
		}
		l.err.Store(&fault)
	case l.err.Load() != nil:
		l.err.Store(nil)
	}
}

// with is err. If that is ctx's error, it comes together with the fault, if one is
// known.
func (l *lastFault) with(ctx context.Context, err error) error {
	ended, fault := ctx.Err(), l.err.Load()
	if ended == nil || fault == nil || !errors.Is(err, ended) {
		return err
	}
	return fmt.Errorf("%w: %w", ended, *fault)
}
