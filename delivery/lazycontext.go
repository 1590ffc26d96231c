package delivery

import (
	"context"
	"sync"
	"time"
)

// lazyContext is a context with a deadline that can be cancelled with a
// cause. Unlike the standard library's it has no timer and no link to its parent
// before somebody waits on it, and many never do: a handler that only computes,
// a store in memory. From then on a standard one does the work. The zero value
// has no parent and is not usable.
type lazyContext struct {
	parent   context.Context
	deadline time.Time
	envelope *Envelope // what AttemptFrom looks for; may be nil

	mu     sync.Mutex
	ended  bool            // by end
	real   context.Context // once somebody waits
	cancel context.CancelCauseFunc
	stop   context.CancelFunc
}

// within is ctx until d after now at most. Its end must be called.
func within(ctx context.Context, now time.Time, d time.Duration) *lazyContext {
	return &lazyContext{parent: ctx, deadline: now.Add(d)}
}

// Deadline implements context.Context.
func (c *lazyContext) Deadline() (time.Time, bool) {
	if earlier, ok := c.parent.Deadline(); ok && earlier.Before(c.deadline) {
		return earlier, true
	}
	return c.deadline, true
}

// Done implements context.Context.
func (c *lazyContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.materialize().Done()
}

// Err implements context.Context.
func (c *lazyContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.real != nil:
		return c.real.Err()
	case c.ended:
		return context.Canceled
	}
	if err := c.parent.Err(); err != nil {
		return err
	}
	if time.Until(c.deadline) <= 0 { // reads one clock, time.Now two
		return context.DeadlineExceeded
	}
	return nil
}

// Value implements context.Context.
func (c *lazyContext) Value(key any) any {
	if _, ok := key.(attemptKey); ok && c.envelope != nil {
		return c.envelope
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real != nil {
		return c.real.Value(key)
	}
	return c.parent.Value(key)
}

// abort cancels with a cause, which context.Cause finds.
func (c *lazyContext) abort(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.materialize()
	c.cancel(cause)
}

// end frees what the context holds. Like the standard library's it is cancelled
// from then on.
func (c *lazyContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.real != nil {
		c.stop()
		c.cancel(nil)
	}
}

// materialize makes the standard context. It is called under the lock.
func (c *lazyContext) materialize() context.Context {
	if c.real == nil {
		var cancelled context.Context
		cancelled, c.cancel = context.WithCancelCause(c.parent)
		c.real, c.stop = context.WithDeadline(cancelled, c.deadline)
		if c.ended {
			c.stop()
			c.cancel(nil)
		}
	}
	return c.real
}
