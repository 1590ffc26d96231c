package redisstate

import (
	"context"
	"time"

	"github.com/esh3artech/barid/retry"
)

// maxBackoff bounds how long a Fleet waits before it tries Redis again.
const maxBackoff = 15 * time.Second

// Run shares the breakers until ctx ends, and returns nil then, as soon as the
// exchange that is under way is over, which Config.Timeout bounds. While Redis is
// away it tries again after Every, and then after longer and longer, up to 15 s,
// or Every if that is longer. It ends early only with ErrConfig, or with
// ErrRunning when another Run of the same Fleet goes on. It may be called again
// after it has returned.
//
// When it returns, the breakers go on by themselves from the state they are in,
// a force included, and a lease to probe is given back.
func (f *Fleet) Run(ctx context.Context) error {
	if err := f.Err(); err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	if !f.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer f.running.Store(false)
	defer f.leave()
	for failures := 0; ctx.Err() == nil; {
		// A Sync is not broken off: Redis may just have granted a lease, which could
		// not be given back without knowing of it.
		if err := f.Sync(context.WithoutCancel(ctx)); err != nil && f.isAway() {
			failures++
			// As nothing can be told, there is no hurry.
			retry.Wait(ctx.Done(), backoff(f.config.Every, failures))
			continue
		}
		failures = 0
		f.waitForNext(ctx)
	}
	return nil
}

// syncSoon has Run sync without waiting for the rest of Every.
func (f *Fleet) syncSoon() {
	select {
	case f.urgent <- struct{}{}:
	default: // it will already
	}
}

// waitForNext waits until the next Sync is due, or for ctx's end.
func (f *Fleet) waitForNext(ctx context.Context) {
	least := f.config.Every / 10
	if !retry.Wait(ctx.Done(), least) {
		return
	}
	rest := time.NewTimer(f.config.Every - least)
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-f.urgent:
	case <-ctx.Done():
	}
}

// backoff doubles from every with each failure after the first. Chance shortens
// it, so that instances don't come all at once, but never below every.
func backoff(every time.Duration, failures int) time.Duration {
	policy := retry.Exponential{Base: every, Max: max(every, maxBackoff), Jitter: retry.JitterEqual}
	return max(every, policy.Delay(failures-1))
}

// leave has every breaker go on by itself and gives back the leases to probe.
func (f *Fleet) leave() {
	f.syncing <- struct{}{}
	defer func() { <-f.syncing }()
	var commands []command
	for _, m := range f.snapshot() {
		if m.leased {
			commands = append(commands, command{key: m.key, op: opLeave, token: f.token})
		}
		m.detach()
	}
	if len(commands) > 0 {
		// If it fails the leases end by themselves.
		_, _ = f.ask(context.Background(), commands)
	}
	f.sending <- struct{}{} // no exchange outlives Run
	<-f.sending
}
