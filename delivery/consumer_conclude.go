package delivery

import (
	"context"
	"time"

	"github.com/esh3artech/barid/retry"
)

// conclude sends a message on its way after its outcome.
func (r *consumerRun) conclude(ctx context.Context, m *inflight, o outcome) {
	p := r.planner.planFor(m, o)
	if p.route == routeSettle {
		m.settlement = settlement{plan: p}
		r.settle(ctx, m)
		return
	}
	switch p.route {
	case routeHold:
		r.hold(ctx, m, p)
	case routeRequeue:
		r.metrics.concluded(p.counted)
		r.await(p.gate, o.err)
		r.requeue(ctx, m)
	default:
		r.metrics.concluded(p.counted)
		r.leave(ctx, m)
	}
}

// settle settles a message, now or as soon as it can be done. What waits for a
// store has a goroutine of its own, so that the workers go on; the number of
// these is bounded by what may be in hand.
func (r *consumerRun) settle(ctx context.Context, m *inflight) {
	var err error
	if !r.settler.waits(m) {
		if err = r.settler.settle(ctx, m); err == nil {
			r.end(m)
			return
		}
	}
	r.workers.Go(func() {
		if r.settler.settleUntilDone(ctx, m, err) {
			r.end(m)
		} else {
			r.leave(ctx, m)
		}
	})
}

// hold keeps a message in hand for a while, and in ordered mode its recipient's
// others in line behind it, as far as there is room and MaxHold allows.
func (r *consumerRun) hold(ctx context.Context, m *inflight, p plan) {
	r.queue.suspects.leave(m)
	ordered := m.recipient != ""
	switch {
	case p.resume == nil && p.counted != "":
		r.metrics.concluded(p.counted)
	case p.resume != nil && ordered:
		now := time.Now()
		if m.failing.IsZero() {
			m.failing = now
		}
		if now.Add(p.delay).Sub(m.failing) > r.config.MaxHold {
			r.workers.Go(func() { r.stepAside(ctx, m, p) })
			return
		}
	}
	p.log(ctx, r.config.Logger, m)
	if !ordered {
		// Otherwise the claim is needed when the hold has to end, and nobody else may
		// go on with the message meanwhile.
		_ = m.release(ctx)
	}
	held := &hold{}
	if p.outcome.kind != undecided { // else there is nothing else to be done with it
		held = r.order.hold(m, p.delay)
	}
	r.workers.Go(func() {
		timer := time.NewTimer(p.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			r.order.endHold(m, held)
			r.resume(ctx, m, p)
		case <-held.aside:
			r.order.endHold(m, held)
			r.stepAside(ctx, m, p)
		case <-r.serving.Done():
			r.order.endHold(m, held)
			r.giveBack(ctx, m)
		}
	})
}

// resume has a message go on whose hold is over.
func (r *consumerRun) resume(ctx context.Context, m *inflight, p plan) {
	if p.resume != nil {
		r.metrics.concluded(p.counted)
		m.envelope = p.resume
	}
	if !r.queue.push(m) {
		r.giveBack(ctx, m)
	}
}

// stepAside lets the others go before a message that may not be held any longer.
func (r *consumerRun) stepAside(ctx context.Context, m *inflight, p plan) {
	if m.lease.isLost() {
		r.leave(ctx, m) // what becomes of it is another consumer's to say
		return
	}
	o, able := r.planner.stepAside(m, p.outcome)
	if o.kind != outcomeGivenUp {
		r.next(m)
	}
	if able {
		r.conclude(ctx, m, o)
		return
	}
	if !retry.Wait(r.serving.Done(), time.Until(p.outcome.at.Add(p.delay))) {
		r.giveBack(ctx, m)
		return
	}
	r.resume(ctx, m, p)
}

// requeue puts a message that had its turn back as the first of its level.
func (r *consumerRun) requeue(ctx context.Context, m *inflight) {
	r.queue.suspects.leave(m)
	_ = m.release(ctx)
	if !r.queue.putBack(m) {
		r.giveBack(ctx, m)
	}
}

// leave leaves the message to whoever comes next: which, in ordered mode, is this
// consumer, lest others overtake it. A stale one comes again, as all behind it do.
func (r *consumerRun) leave(ctx context.Context, m *inflight) {
	if m.recipient == "" || r.serving.Err() != nil || m.isStale() {
		r.giveBack(ctx, m)
		return
	}
	m.claim = nil // lost
	r.hold(ctx, m, plan{delay: backoff(1, time.Second)})
}

// giveBack leaves the message for redelivery: at once where it can't come
// straight back here, else when the subscription closes.
func (r *consumerRun) giveBack(ctx context.Context, m *inflight) {
	_ = m.release(ctx) // if that fails the lease ends with the run
	m.forgetStart(ctx)
	if r.serving.Err() == nil || r.paused {
		_ = m.incoming.Nack() // a stale incoming comes again by itself
	}
	r.end(m)
}

// end is for a message that is settled or given back.
func (r *consumerRun) end(m *inflight) {
	r.next(m)
	r.queue.suspects.settled(m)
	m.forget()
	r.inHand.Add(-1)
}

// next lets the next message of m's recipient go.
func (r *consumerRun) next(m *inflight) {
	if next := r.order.next(m); next != nil && !r.queue.push(next) {
		r.giveBack(context.Background(), next)
	}
}
