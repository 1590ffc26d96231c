// Package lastfault remembers what keeps a server from being asked. A caller whose
// context ends while it waits for the server is told of it: otherwise all that it
// learns is that it has waited for too long.
//
// The stores and the shared breakers use it, each for its own server.
package lastfault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// Fault is the last known fault, until the server answers again. The zero value knows
// none. It is safe for concurrent use.
type Fault struct{ err atomic.Pointer[error] }

// Note keeps how a question went that was asked on behalf of ctx. A nil err is an
// answer. So is an error that Redis answered with, whatever it says. What may come of
// ctx's end tells nothing.
//
// An err that matches a context's error is kept as a text, because that context was
// not the one of those who are told.
func (f *Fault) Note(ctx context.Context, err error) {
	switch {
	case err == nil || IsReply(err):
		if f.err.Load() != nil {
			f.err.Store(nil)
		}
	case EndedBy(ctx, err) == nil:
		fault := err // err itself does not go to the heap, which every answer would pay for
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			fault = errors.New(err.Error())
		}
		f.err.Store(&fault)
	}
}

// Err is the fault, or nil when none is known.
func (f *Fault) Err() error {
	if fault := f.err.Load(); fault != nil {
		return *fault
	}
	return nil
}

// With is err, the outcome of a call. If that comes of the end of ctx, which is the
// caller's, it is ctx's error, together with fault unless that is nil.
func With(ctx context.Context, err, fault error) error {
	ended := EndedBy(ctx, err)
	switch {
	case ended == nil:
		return err
	case fault == nil:
		return ended
	}
	return fmt.Errorf("%w: %w", ended, fault)
}

// EndedBy is ctx's error if ctx has ended and err may come of that: it is a context's
// error, or a timeout of the network, which has ctx's deadline. Otherwise it is nil.
func EndedBy(ctx context.Context, err error) error {
	network, isNetwork := errors.AsType[net.Error](err) // context.DeadlineExceeded is one
	if isNetwork && network.Timeout() || errors.Is(err, context.Canceled) {
		return Ended(ctx)
	}
	return nil
}

// Reason is err, the outcome of what was done for ctx within a timeout of its own. A
// context's error is timeout instead, unless it may come of ctx's end.
func Reason(ctx context.Context, err, timeout error) error {
	isContexts := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if isContexts && EndedBy(ctx, err) == nil {
		return timeout
	}
	return err
}

// Ended is ctx's error, or nil. The network has the same deadline, and may notice it a
// moment before ctx does.
func Ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// IsReply tells what a Redis said from what kept it from being asked. go-redis marks
// these errors by a method, so that no client has to be imported.
func IsReply(err error) bool {
	_, ok := errors.AsType[interface {
		error
		RedisError()
	}](err)
	return ok
}
