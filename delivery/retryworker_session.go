package delivery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/retry"
)

// renewal keeps the claims on what waits in a Volatile transport of this
// process. A nil one has nothing to keep.
type renewal struct {
	store   Store
	session string
	lease   time.Duration
	storage *outage

	renewed atomic.Int64 // when last, in microseconds
}

// keepSession renews the claims until the returned function is called, which
// then lets go of them, within work.
func (p *patrol) keepSession(ctx, work context.Context) (end func()) {
	if p.renewal == nil {
		return func() {}
	}
	renewing, stop := context.WithCancel(ctx)
	var goroutine sync.WaitGroup
	goroutine.Go(func() { p.renewal.run(renewing) })
	return func() {
		stop()
		goroutine.Wait()
		p.renewal.until(work, time.Now())
	}
}

// period is how long a claim lasts that may be the next to end.
func (r *renewal) period() time.Duration { return min(r.lease, sessionHold) }

func (r *renewal) run(ctx context.Context) {
	for {
		wait := r.period() / 3
		if !r.renew(ctx) {
			wait = min(wait, time.Until(r.storage.over()))
		}
		if !retry.Wait(ctx.Done(), wait) {
			return
		}
	}
}

// fresh makes sure that the claims are not due because they could not be renewed
// in time: what waits here would be taken for an orphan. It returns false when
// it can't.
func (r *renewal) fresh(ctx context.Context) bool {
	return r == nil || time.Since(time.UnixMicro(r.renewed.Load())) < r.period()*2/3 || r.renew(ctx)
}

func (r *renewal) renew(ctx context.Context) bool {
	now := time.Now()
	if !r.until(ctx, now.Add(r.lease)) {
		return false
	}
	r.renewed.Store(now.UnixMicro())
	return true
}

func (r *renewal) until(ctx context.Context, until time.Time) bool {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	_, err := r.store.Renew(limited, r.session, until)
	switch {
	case err == nil:
		r.storage.answered(ctx)
	case ctx.Err() == nil:
		r.storage.failed(ctx, err)
	}
	return err == nil
}
