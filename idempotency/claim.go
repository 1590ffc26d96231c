package idempotency

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Claim is a key that is held. It is settled once, by Complete, Schedule or Release.
// After an error any of them may be called. The lease is renewed until one has
// succeeded, the lease is lost, or the context ends that the claim was made with.
// After one has succeeded all of them return ErrSettled, so that a deferred Release
// does no harm.
//
// They ask the store even when the lease seems to be lost, because a late completion
// counts if nobody has taken the key meanwhile. Give them a context that outlives the
// work's: the one that Guard.Claim returned is cancelled in just the cases where it
// matters most to settle.
//
// Their errors match ErrSettled; or ErrLost when another has taken the key, or the
// lease has ended; or ErrUnavailable when the store could not be asked, and the step
// may or may not have been taken; or are a context's own.
type Claim struct {
	guard *Guard
	scope string // of the key, for logs
	key   string
	token string
	// ctx is the context that the claim was made with. Renewal, which has no caller of
	// its own, runs with it and ends with it.
	ctx   context.Context
	ended func(cause error)
	phase atomic.Int32

	renewal renewal
}

// The phases of a claim, in order.
const (
	held int32 = iota
	lost
	settled
)

// over says whether there is nothing left to renew.
func (c *Claim) over() bool { return c.phase.Load() != held || c.ctx.Err() != nil }

// Token is what the store knows the holder by.
func (c *Claim) Token() string {
	if c == nil {
		return ""
	}
	return c.token
}

// Complete makes the key done for the guard's Window. It also succeeds when the
// lease had ended but nobody else had taken the key; that is logged.
func (c *Claim) Complete(ctx context.Context) error {
	if err := c.settleable(ctx); err != nil {
		return err
	}
	completion, err := c.guard.store.Complete(ctx, c.key, c.token, c.guard.config.Window)
	if err == nil && completion == Late {
		c.guard.config.Logger.WarnContext(ctx, "idempotency claim completed late", "scope", c.scope, "token", c.token)
	}
	return c.settle(ctx, "complete", err)
}

// Schedule puts a fence for the next attempt in place of the lease: lower ones are
// stale from now on. Call it only after that attempt has been scheduled durably,
// delay from now. The fence stays for the guard's Window beyond delay.
func (c *Claim) Schedule(ctx context.Context, attempt int, delay time.Duration) error {
	if err := c.settleable(ctx); err != nil {
		return err
	}
	ttl := c.guard.config.Window
	if delay > 0 {
		ttl += delay
	}
	if ttl < 0 { // the sum is over 292 years
		ttl = delay
	}
	err := c.guard.store.Schedule(ctx, c.key, c.token, attempt, ttl)
	return c.settle(ctx, "schedule", err)
}

// Release makes the key absent: the next claim of it gets it.
func (c *Claim) Release(ctx context.Context) error {
	if err := c.settleable(ctx); err != nil {
		return err
	}
	err := c.guard.store.Release(ctx, c.key, c.token)
	return c.settle(ctx, "release", err)
}

func (c *Claim) settleable(ctx context.Context) error {
	if c == nil || c.guard == nil || c.phase.Load() == settled {
		return ErrSettled
	}
	return c.guard.usable(ctx)
}

// settle ends the claim according to the store's answer to one of the three steps.
func (c *Claim) settle(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		c.end(settled, ErrSettled)
		return nil
	case errors.Is(err, ErrLost):
		c.lose(ctx)
		return err
	}
	return Unavailable(ctx, op, err)
}

// lose is for when the lease is known to be gone.
func (c *Claim) lose(ctx context.Context) {
	if c.end(lost, ErrLost) {
		c.guard.config.Logger.WarnContext(ctx, "idempotency lease lost", "scope", c.scope, "token", c.token)
	}
}

// end stops renewal and calls ended. It says whether the claim has moved on to next:
// a lost one may still be settled, a settled one stays so.
func (c *Claim) end(next int32, cause error) bool {
	for {
		phase := c.phase.Load()
		if phase >= next {
			return false
		}
		if c.phase.CompareAndSwap(phase, next) {
			c.guard.renewals.remove(c)
			c.ended(cause)
			return true
		}
	}
}
