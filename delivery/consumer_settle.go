package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// conclude carries out the verdict.
func (r *run) conclude(ctx context.Context, j *job, v verdict) {
	v.at = j.now
	j.verdict = v
	switch v.action {
	case retryThen:
		if j.recipient != "" {
			r.holdUp(ctx, j)
			return
		}
		if !r.delays() {
			r.keepForRetry(ctx, j)
			return
		}
	case postpone:
		if !r.delays() || v.delay <= time.Second || j.recipient != "" && v.err != nil {
			r.metrics.settled(metrics.OutcomeDeferred)
			r.keep(ctx, j, v.delay)
			return
		}
	case hold:
		r.metrics.settled(metrics.OutcomeDeferred)
		r.keep(ctx, j, v.delay)
		return
	case yield:
		r.metrics.settled(metrics.OutcomeDeferred)
		r.release(ctx, j)
		if !r.backlog.putBack(j) {
			r.giveBack(ctx, j)
		}
		return
	case leave:
		r.metrics.settled(metrics.OutcomeAbandoned)
		r.redeliver(ctx, j)
		return
	default:
	}
	r.finish(ctx, j)
}

// delays says whether a message can be put somewhere until its time comes.
func (r *run) delays() bool {
	_, able := r.transport.(Delayer)
	return able || r.config.schedules()
}

// farAway is from when on the stores are worth a goroutine: a worker that waits
// for them could run a handler meanwhile.
const farAway = 50 * time.Microsecond

// finish settles, now or as soon as it can be done. How much is being settled is
// bounded by what may be in hand.
func (r *run) finish(ctx context.Context, j *job) {
	if r.storeFar.Load() && (j.claim != nil || r.config.Store != nil) {
		r.workers.Go(func() {
			if err := r.settle(ctx, j); err != nil {
				r.settleLater(ctx, j, err)
			}
		})
		return
	}
	if err := r.settle(ctx, j); err != nil {
		r.workers.Go(func() { r.settleLater(ctx, j, err) })
	}
}

// settle makes the message's next home durable, tells the stores, and then
// acks. After an error it may be called again, and goes on where it failed.
//
// A failure is noted before the key is marked, and a success after it. So
// whoever finds a key done knows that the message is delivered, or that it was
// noted what else became of it.
func (r *run) settle(ctx context.Context, j *job) error {
	if !j.homed {
		if err := r.home(ctx, j); err != nil {
			return err
		}
		j.homed = true
	}
	begin := j.now
	success := j.verdict.action == deliver
	if !success {
		if err := r.note(ctx, j); err != nil {
			return err
		}
	}
	if !j.marked {
		if err := r.mark(ctx, j); err != nil {
			return err
		}
		j.marked = true
	}
	if success {
		if err := r.note(ctx, j); err != nil {
			return err
		}
	}
	if far := j.tick().Sub(begin) > farAway; far != r.storeFar.Load() {
		r.storeFar.Store(far)
	}
	r.ack(ctx, j)
	return nil
}

// settleLater tries to settle until it works or the drain is over. It has a
// goroutine of its own, so that the workers go on; their number is bounded by
// what may be in hand.
func (r *run) settleLater(ctx context.Context, j *job, err error) {
	for tries := 0; err != nil; tries++ {
		r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "settle failed, trying again",
			slog.String("message_id", j.id()), slog.Int("tries", tries+1), slog.Any("error", err))
		stopped := !retry.Wait(ctx.Done(), backoff(tries, 5*time.Second))
		switch {
		case stopped && j.homed && (j.noted || r.config.Store == nil):
			// What is missing is only the mark, which suppresses copies.
			r.ack(ctx, j)
			return
		case stopped, !j.homed && j.lease.isLost():
			// Without the lease another copy may be running by now, and a retry sent
			// from here would be a second chain of retries.
			r.metrics.settled(metrics.OutcomeAbandoned)
			r.redeliver(ctx, j)
			return
		}
		j.tick()
		err = r.settle(ctx, j)
	}
}

// home makes durable what becomes of the message.
func (r *run) home(ctx context.Context, j *job) error {
	v := &j.verdict
	if v.action == retryThen || v.action == postpone {
		err := r.schedule(ctx, j)
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
			return err
		}
		// It will never be taken, so there is no retry to wait for.
		v.action, v.reason, v.err = bury, ReasonPermanent, err
	}
	if v.action == bury {
		letter := newDeadLetter(r.config.Name, v.next, v.reason, v.err, v.at)
		letter.Raw = v.raw
		if v.letterID == "" {
			v.letterID = letter.ID
		}
		letter.ID = v.letterID
		limited := within(ctx, time.Now(), settleTimeout)
		defer limited.end()
		return r.config.DeadLetters.DeadLetter(limited, letter)
	}
	return nil
}

// schedule lets the message come again after a delay.
func (r *run) schedule(ctx context.Context, j *job) error {
	v := &j.verdict
	if r.config.schedules() {
		progress, err := r.tell(ctx, j, r.newsOf(j, StatusRetrying, v.at.Add(v.delay)))
		j.noted = err == nil
		if errors.Is(err, ErrLate) {
			// What becomes of the message has been decided: it was acknowledged, and
			// no copy of it need run any more, or this is an old copy.
			v.action, v.err, v.done, j.noted = duplicate, err, progress.Status.Final(), true
			return nil
		}
		return err
	}
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	if errs := r.transport.(Delayer).SendAfter(limited, v.delay, []Envelope{*v.next}); errs != nil {
		return errs[0]
	}
	return nil
}

// mark tells the idempotency store what became of the claim.
func (r *run) mark(ctx context.Context, j *job) error {
	if j.claim == nil {
		return nil
	}
	begin := j.tick()
	limited := &j.marking
	if limited.parent == nil {
		limited.parent, limited.deadline = ctx, begin.Add(settleTimeout)
	} else {
		limited = within(ctx, begin, settleTimeout) // the store may hold on to that of an earlier try
	}
	defer limited.end()
	var err error
	switch v := &j.verdict; v.action {
	case deliver:
		if !r.config.awaitsAck(&j.envelope.Message) {
			err = j.claim.Complete(limited)
			break
		}
		// If the end user does not acknowledge it, the next attempt must not be
		// taken for a copy of this one.
		err = j.claim.Schedule(limited, j.envelope.Attempt+1, r.config.AckTimeout)
	case bury:
		err = j.claim.Complete(limited)
	case retryThen:
		err = j.claim.Schedule(limited, v.next.Attempt, v.delay)
	case duplicate:
		if v.done {
			err = j.claim.Complete(limited)
			break
		}
		err = j.claim.Release(limited)
	default:
		err = j.claim.Release(limited)
	}
	switch {
	case errors.Is(err, idempotency.ErrLost):
		// The lease ran out and somebody else claimed. What was to be done here is
		// done and durable; the other copy is that one's to settle.
		r.metrics.idempotency(metrics.IdempotencyLost)
		r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "lease lost before the mark", slog.String("message_id", j.id()))
		return nil
	case err != nil && r.config.FailOpen:
		r.metrics.idempotency(metrics.IdempotencyBypassed)
		return nil
	}
	return err
}

// ack ends the job.
func (r *run) ack(ctx context.Context, j *job) {
	defer r.depart(j)
	if err := j.incoming.Ack(); err != nil {
		// It will come again and be told as a duplicate.
		r.config.Logger.LogAttrs(ctx, slog.LevelDebug, "ack failed", slog.String("message_id", j.id()), slog.Any("error", err))
	}
	v := &j.verdict
	switch v.action {
	case deliver:
		r.metrics.delivered(j)
		if r.config.Logger.Enabled(ctx, slog.LevelInfo) { // spares the attributes
			r.config.Logger.LogAttrs(ctx, slog.LevelInfo, "delivered",
				slog.String("message_id", j.id()), slog.Int("attempt", j.envelope.Attempt+1))
		}
	case duplicate:
		r.metrics.settled(metrics.OutcomeDuplicate)
	case retryThen:
		r.metrics.settled(metrics.OutcomeRetried)
		r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "retry scheduled",
			slog.String("message_id", j.id()), slog.Int("attempt", v.next.Attempt), slog.Duration("delay", v.delay), slog.Any("error", v.err))
	case bury:
		r.metrics.settled(metrics.OutcomeDeadLettered)
		r.config.Logger.LogAttrs(ctx, slog.LevelError, "dead-lettered",
			slog.String("message_id", j.id()), slog.String("reason", string(v.reason)), slog.Any("error", v.err))
	default:
		r.metrics.settled(metrics.OutcomeDeferred)
	}
}

// holdUp keeps a failing job in hand for its next attempt, and its recipient's
// others in line behind it, as far as that is allowed.
func (r *run) holdUp(ctx context.Context, j *job) {
	now := time.Now()
	if j.failing.IsZero() {
		j.failing = now
	}
	if now.Add(j.verdict.delay).Sub(j.failing) > r.config.MaxHold {
		r.stepAside(ctx, j)
		return
	}
	r.release(ctx, j)
	r.workers.Go(func() {
		timer := time.NewTimer(j.verdict.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			r.keepForRetry(ctx, j)
		case <-r.lines.crowd(j):
			r.stepAside(ctx, j)
		case <-r.serving.Done():
			r.giveBack(ctx, j)
		}
	})
}

// stepAside ends the hold of a failing job.
func (r *run) stepAside(ctx context.Context, j *job) {
	switch {
	case r.config.OnHoldExceeded == HoldDeadLetter:
		j.verdict.action, j.verdict.reason = bury, ReasonExhausted
		j.verdict.err = fmt.Errorf("delivery: held up its recipient for too long: %w", j.verdict.err)
		r.finish(ctx, j)
	case !r.delays():
		r.depart(j)
		r.keepForRetry(ctx, j)
	default:
		r.depart(j)
		r.finish(ctx, j)
	}
}

// keepForRetry keeps a job in hand for its next attempt, which is counted in hand
// only. The key must not be fenced: the message in the queue is the old one.
func (r *run) keepForRetry(ctx context.Context, j *job) {
	j.envelope = j.verdict.next
	r.metrics.settled(metrics.OutcomeRetried)
	wait := j.verdict.delay
	if j.recipient != "" {
		wait = 0 // it has waited
	}
	r.keep(ctx, j, wait)
}

// depart lets the next one of the recipient go.
func (r *run) depart(j *job) {
	if r.lines == nil {
		return
	}
	if next := r.lines.depart(j); next != nil && !r.backlog.push(next) {
		r.giveBack(context.Background(), next)
	}
}

// redeliver leaves the message to whoever comes next: which, in ordered mode,
// is us, lest others overtake it.
func (r *run) redeliver(ctx context.Context, j *job) {
	if j.recipient == "" || r.serving.Err() != nil {
		r.giveBack(ctx, j)
		return
	}
	j.claim = nil // lost
	r.keep(ctx, j, backoff(1, time.Second))
}

// keep holds a job in hand for a while, without its claim.
func (r *run) keep(ctx context.Context, j *job, d time.Duration) {
	r.release(ctx, j)
	r.workers.Go(func() {
		if !retry.Wait(r.serving.Done(), d) || !r.backlog.push(j) {
			r.giveBack(ctx, j)
		}
	})
}

// release lets go of the claim, so that others need not wait for its lease. If
// that fails they wait.
func (r *run) release(ctx context.Context, j *job) {
	if j.claim == nil {
		return
	}
	limited := within(context.WithoutCancel(ctx), time.Now(), settleTimeout)
	defer limited.end()
	_ = j.claim.Release(limited)
	j.claim = nil
}

// giveBack leaves the message for redelivery: at once where it can't come
// straight back here, else when the subscription closes.
func (r *run) giveBack(ctx context.Context, j *job) {
	r.release(ctx, j)
	if r.serving.Err() == nil || r.paused {
		_ = j.incoming.Nack() // a stale incoming comes again by itself
	}
	r.depart(j)
}
