package delivery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/retry"
)

// session keeps the claims on what waits in a Volatile transport of this
// process. A nil session has nothing to keep.
type session struct {
	store  Store
	queue  string
	token  string // Volatile.Session
	lease  time.Duration
	health *dependency // of the store

	renewed atomic.Int64 // when last, in microseconds
}

// keep renews the claims until the returned function is called, which then ends
// them, within work.
func (s *session) keep(ctx, work context.Context) (end func()) {
	if s == nil {
		return func() {}
	}
	renewing, stop := context.WithCancel(ctx)
	var goroutine sync.WaitGroup
	goroutine.Go(func() { s.run(renewing) })
	return func() {
		stop()
		goroutine.Wait()
		s.claimUntil(work, time.Now())
	}
}

// period is for how long the claim lasts that ends first.
func (s *session) period() time.Duration { return min(s.lease, sessionHold) }

func (s *session) run(ctx context.Context) {
	for {
		wait := s.period() / 3
		if !s.renew(ctx) {
			wait = min(wait, time.Until(s.health.over()))
		}
		if !retry.Wait(ctx.Done(), wait) {
			return
		}
	}
}

// fresh makes sure that the claims are not due because they could not be renewed
// in time: what waits here would be taken for what a dead process left. It
// returns false when it can't.
func (s *session) fresh(ctx context.Context) bool {
	return s == nil || time.Since(time.UnixMicro(s.renewed.Load())) < s.period()*2/3 || s.renew(ctx)
}

func (s *session) renew(ctx context.Context) bool {
	now := time.Now()
	if !s.claimUntil(ctx, now.Add(s.lease)) {
		return false
	}
	s.renewed.Store(now.UnixMicro())
	return true
}

func (s *session) claimUntil(ctx context.Context, until time.Time) bool {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	err := s.store.Renew(limited, s.queue, s.token, until)
	switch {
	case err == nil:
		s.health.answered(ctx)
	case ctx.Err() == nil:
		s.health.failed(ctx, err)
	}
	return err == nil
}
