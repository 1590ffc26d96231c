package delivery

import (
	"context"
	"time"

	"github.com/esh3artech/barid/metrics"
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
	if p.counted != "" {
		r.metrics.concluded(p.counted)
	}
	switch p.route {
	case routeHold:
		r.hold(ctx, m, p.delay)
	case routeHoldRecipient:
		r.holdRecipient(ctx, m, o)
	case routeRetryInHand:
		// The key must not be scheduled: the message in the transport is the old one.
		m.envelope = o.next
		r.hold(ctx, m, p.delay)
	case routeRequeue:
		r.await(p.gate, o.err)
		r.requeue(ctx, m)
	default:
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
			r.next(m)
			return
		}
	}
	r.workers.Go(func() {
		if r.settler.settleUntilDone(ctx, m, err) {
			r.next(m)
		} else {
			r.leave(ctx, m)
		}
	})
}

// hold keeps a message in hand for a while, without its claim.
func (r *consumerRun) hold(ctx context.Context, m *inflight, d time.Duration) {
	m.release(ctx)
	r.workers.Go(func() {
		if !retry.Wait(r.serving.Done(), d) || !r.queue.push(m) {
			r.giveBack(ctx, m)
		}
	})
}

// holdRecipient keeps a failing message in hand for its next attempt, and its
// recipient's others in line behind it, as far as that is allowed.
func (r *consumerRun) holdRecipient(ctx context.Context, m *inflight, o outcome) {
	now := time.Now()
	if m.failing.IsZero() {
		m.failing = now
	}
	if now.Add(o.delay).Sub(m.failing) > r.config.MaxHold {
		r.endHold(ctx, m, o)
		return
	}
	m.release(ctx)
	r.workers.Go(func() {
		timer := time.NewTimer(o.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			r.metrics.concluded(metrics.OutcomeRetried)
			m.envelope = o.next
			if !r.queue.push(m) {
				r.giveBack(ctx, m)
			}
		case <-r.order.crowded(m):
			r.endHold(ctx, m, o)
		case <-r.serving.Done():
			r.giveBack(ctx, m)
		}
	})
}

// endHold lets the others of the recipient go before a failing message, which is
// given up, or tried again out of order.
func (r *consumerRun) endHold(ctx context.Context, m *inflight, o outcome) {
	if r.config.OnHoldExceeded == HoldDeadLetter {
		r.conclude(ctx, m, heldTooLong(o))
		return
	}
	r.next(m)
	r.conclude(ctx, m, o)
}

// requeue puts a message that had its turn back as the first of its level.
func (r *consumerRun) requeue(ctx context.Context, m *inflight) {
	m.release(ctx)
	if !r.queue.putBack(m) {
		r.giveBack(ctx, m)
	}
}

// leave leaves the message to whoever comes next: which, in ordered mode, is this
// consumer, lest others overtake it.
func (r *consumerRun) leave(ctx context.Context, m *inflight) {
	if m.recipient == "" || r.serving.Err() != nil {
		r.giveBack(ctx, m)
		return
	}
	m.claim = nil // lost
	r.hold(ctx, m, backoff(1, time.Second))
}

// giveBack leaves the message for redelivery: at once where it can't come
// straight back here, else when the subscription closes.
func (r *consumerRun) giveBack(ctx context.Context, m *inflight) {
	m.release(ctx)
	if r.serving.Err() == nil || r.paused {
		_ = m.incoming.Nack() // a stale incoming comes again by itself
	}
	r.next(m)
}

// next lets the next message of m's recipient go.
func (r *consumerRun) next(m *inflight) {
	if r.order == nil {
		return
	}
	if next := r.order.next(m); next != nil && !r.queue.push(next) {
		r.giveBack(context.Background(), next)
	}
}
