package delivery

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

// Where the idempotency store is a round trip away and handlers are quick, the
// workers would spend most of their time waiting for claims. So keys are asked
// for ahead of their jobs' turn: for as many jobs as handlers get done within two
// round trips, so that while one half waits for its turn the other is on its way.
// A claim waits for its turn about as long as it took to get. Where the workers
// together get nothing done in that time, nothing is asked ahead.

// maxAhead bounds the jobs that are ahead, for each worker.
const maxAhead = 8

// pace is how long claims and handlers take, on average. It is kept only while
// the store is far.
type pace struct {
	claim, handler atomic.Int64 // nanoseconds; zero: not known
}

func (p *pace) claimed(took time.Duration) { average(&p.claim, took) }
func (p *pace) handled(took time.Duration) { average(&p.handler, took) }

// average moves mean by an eighth towards took. Of two at once one may get lost.
func average(mean *atomic.Int64, took time.Duration) {
	old := mean.Load()
	if old == 0 {
		old = int64(took)
	}
	mean.Store(max(1, old+(int64(took)-old)/8))
}

// ahead is how many jobs so many workers finish while two claims, one after the
// other, are under way.
func (p *pace) ahead(workers int) int {
	claim, handler := p.claim.Load(), p.handler.Load()
	if claim == 0 || handler == 0 {
		return 0
	}
	return workers * int(min(maxAhead*handler, 2*claim)) / int(handler)
}

// askAhead has the keys asked for of jobs whose turn comes soon.
func (r *run) askAhead(ctx context.Context) {
	if r.guard == nil || !r.storeFar.Load() {
		return
	}
	limit := r.pace.ahead(r.config.Concurrency)
	if limit == 0 {
		return
	}
	for _, j := range r.backlog.takeAhead(limit) {
		r.workers.Go(func() {
			defer func() {
				// A panic in one of the host's functions comes again on the job's turn,
				// and is dealt with there.
				_ = recover()
				if !r.backlog.comeBack(j) {
					r.giveBack(ctx, j)
				}
			}()
			r.askFor(ctx, j)
		})
	}
}

// askFor keeps the answer if it is one. What else there is to say of the job is
// left to its turn.
func (r *run) askFor(ctx context.Context, j *job) {
	j.now = time.Now()
	if r.decode(j) != nil || j.envelope.Expired(j.now) || j.envelope.NotBefore.After(j.now) {
		return
	}
	j.answer = r.ask(ctx, j)
	j.asked = j.answer == nil || errors.Is(j.answer, idempotency.ErrDuplicate) || errors.Is(j.answer, idempotency.ErrBusy)
}

// letGo takes its answer from a job that can't have its turn now.
func (r *run) letGo(ctx context.Context, j *job) {
	r.release(ctx, j)
	j.asked, j.answer = false, nil
	if !r.backlog.putBack(j) {
		r.giveBack(ctx, j)
	}
}
