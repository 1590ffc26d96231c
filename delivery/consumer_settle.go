package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// roundTrip is from when on settling is worth a goroutine: a worker that waits
// for a store that takes longer could run a handler meanwhile.
const roundTrip = 50 * time.Microsecond

// settlement is a plan on its way, with how far it has got.
type settlement struct {
	plan      plan
	homed     bool        // the message's next home is durable
	recorded  bool        // the message store knows
	keySet    bool        // the idempotency store knows
	keyCalled lazyContext // of the first call for the key, to spare an allocation
}

// settler carries out plans. It knows neither queue nor subscription.
type settler struct {
	config    *ConsumerConfig
	transport Transport
	planner   *planner
	metrics   *consumerMetrics
	far       atomic.Bool // the last settlement waited for a store
}

// settle makes the message's next home durable, tells the stores, and then
// acks. After an error it may be called again, and goes on where it failed.
//
// A failure is recorded before the key is completed or scheduled, and a success
// after it. So a consumer that finds a key done knows that the message is delivered,
// or that it was recorded what else became of it.
func (s *settler) settle(ctx context.Context, m *inflight) (err error) {
	defer func() {
		if value := recover(); value != nil { // of a store of the host's
			err = newPanicError(value)
		}
	}()
	if !m.settlement.homed {
		if err := s.home(ctx, m); err != nil {
			return err
		}
	}
	begin := m.now
	success := m.settlement.plan.success
	if !success {
		if err := s.record(ctx, m); err != nil {
			return err
		}
	}
	if err := s.setKey(ctx, m); err != nil {
		return err
	}
	if success {
		if err := s.record(ctx, m); err != nil {
			return err
		}
	}
	if far := m.tick().Sub(begin) > roundTrip; far != s.far.Load() {
		s.far.Store(far)
	}
	s.ack(ctx, m)
	return nil
}

// settleUntilDone settles until that works, after a try that ended with last, if
// there was one. It returns false when the message has to be left for redelivery,
// because the drain is over or the lease is lost.
func (s *settler) settleUntilDone(ctx context.Context, m *inflight, last error) bool {
	for tries := 1; ; tries++ {
		if last == nil {
			m.tick()
			if last = s.settle(ctx, m); last == nil {
				return true
			}
		}
		s.config.Logger.LogAttrs(ctx, slog.LevelWarn, "settle failed",
			slog.String("message_id", m.id()), slog.Int("tries", tries), errorAttr(last))
		last = nil
		stopped := !retry.Wait(ctx.Done(), backoff(tries-1, 5*time.Second))
		switch done := &m.settlement; {
		case stopped && done.homed && (done.recorded || s.config.Store == nil):
			// What is missing is only the key, which suppresses copies.
			s.ack(ctx, m)
			return true
		case stopped, !done.homed && m.lease.isLost():
			// Without the lease another copy may be running by now, and a retry sent
			// from here would be a second chain of retries.
			s.metrics.concluded(metrics.OutcomeAbandoned)
			return false
		}
	}
}

// waits says whether to settle m waits for a store that is a round trip away.
func (s *settler) waits(m *inflight) bool {
	return s.far.Load() && (m.claim != nil || s.config.Store != nil)
}

// home makes durable what becomes of the message. What can't be its home leads to
// another plan.
func (s *settler) home(ctx context.Context, m *inflight) error {
	var err error
	switch p := &m.settlement.plan; {
	case p.letter != nil:
		limited := within(ctx, time.Now(), settleTimeout)
		defer limited.end()
		err = s.config.DeadLetters.DeadLetter(limited, *p.letter)
	case p.resend:
		err = s.sendAfter(ctx, p.outcome.at.Add(p.outcome.delay).Sub(m.now), p.outcome.next)
	case p.updateIsHome:
		var progress Progress
		if progress, err = s.update(ctx, m); errors.Is(err, ErrLate) {
			// What becomes of the message has been decided: it was acknowledged, and
			// no copy of it need run any more, or this is an old copy.
			return s.replan(ctx, m, outcome{kind: outcomeOvertaken, at: p.outcome.at, err: err, final: progress.Status.Final()})
		}
		m.settlement.recorded = err == nil
	}
	if (errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge)) && m.settlement.plan.letter == nil {
		// It will never be taken, so there is no retry to wait for.
		o := m.settlement.plan.outcome
		return s.replan(ctx, m, outcome{kind: outcomeGivenUp, reason: ReasonPermanent, at: o.at, next: o.next, err: err})
	}
	m.settlement.homed = err == nil
	return err
}

func (s *settler) replan(ctx context.Context, m *inflight, o outcome) error {
	m.settlement = settlement{plan: s.planner.planFor(m, o)}
	return s.home(ctx, m)
}

func (s *settler) sendAfter(ctx context.Context, delay time.Duration, next *Envelope) error {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	if delay <= 0 {
		return first(s.transport.Send(limited, []Envelope{*next}))
	}
	return first(s.transport.(Delayer).SendAfter(limited, delay, []Envelope{*next}))
}

// record has the message store know what became of the message, unless it does.
func (s *settler) record(ctx context.Context, m *inflight) error {
	p := &m.settlement.plan
	if p.update == nil {
		m.settlement.recorded = true
	}
	if m.settlement.recorded {
		return nil
	}
	progress, err := s.update(ctx, m)
	switch {
	case err == nil:
	case errors.Is(err, ErrLate):
		// It was overtaken: the end user acknowledged already, or this copy is old.
		if p.letter != nil && progress.Status.Final() {
			if err := s.takeBack(ctx, p.letter.ID); err != nil {
				return err
			}
		}
	case errors.Is(err, ErrInvalid):
		s.config.Logger.LogAttrs(ctx, slog.LevelWarn, "message not recorded",
			slog.String("message_id", m.id()), errorAttr(err))
	default:
		return err
	}
	m.settlement.recorded = true
	return nil
}

// update carries out the plan's update in the store, on a new record if there is
// none: the message may come from a publisher without a store.
func (s *settler) update(ctx context.Context, m *inflight) (Progress, error) {
	p := &m.settlement.plan
	limited := within(ctx, m.tick(), settleTimeout)
	defer limited.end()
	progress, errs := s.config.Store.Update(limited, *p.update)
	switch err := first(errs); {
	case !errors.Is(err, ErrNotFound):
		if len(progress) != 1 {
			return Progress{}, err
		}
		return progress[0], err
	case p.knownOnly:
		return Progress{}, nil
	}
	record := newRecord(m.envelope, s.config.Name, p.update.At)
	if err := record.Apply(*p.update); err != nil {
		return record.Progress, err
	}
	return record.Progress, first(s.config.Store.Save(limited, record)) // ErrExists: to be tried again
}

// takeBack deletes the dead letter of a message that is done after all.
func (s *settler) takeBack(ctx context.Context, id string) error {
	resolver, able := s.config.DeadLetters.(Resolver)
	if !able {
		s.config.Logger.LogAttrs(ctx, slog.LevelError, "dead letters of acknowledged messages stay",
			slog.Any("dead_letter_ids", []string{id}), slog.String("error", "DeadLetters is no Resolver"))
		return nil
	}
	if err := resolve(ctx, resolver, []string{id}); err != nil {
		return err
	}
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "dead letter taken back", slog.String("dead_letter_id", id))
	return nil
}

// setKey has the idempotency store know what becomes of the claim.
func (s *settler) setKey(ctx context.Context, m *inflight) error {
	if m.settlement.keySet || m.claim == nil {
		return nil
	}
	begin := m.tick()
	limited := &m.settlement.keyCalled
	if limited.parent == nil {
		limited.parent, limited.deadline = ctx, begin.Add(settleTimeout)
	} else {
		limited = within(ctx, begin, settleTimeout) // the store may hold on to that of an earlier try
	}
	defer limited.end()
	err := m.setKey(limited, m.settlement.plan.key)
	switch {
	case errors.Is(err, idempotency.ErrLost):
		// The lease ran out and another consumer claimed the key. What was to be done
		// here is done and durable; the other copy is that one's to settle.
		s.metrics.idempotency(metrics.IdempotencyLost)
		s.config.Logger.LogAttrs(ctx, slog.LevelWarn, "lease lost before the message was settled", slog.String("message_id", m.id()))
	case err != nil && s.config.FailOpen:
		s.metrics.idempotency(metrics.IdempotencyBypassed)
	case err != nil:
		return err
	}
	m.settlement.keySet = true
	return nil
}

func (m *inflight) setKey(ctx context.Context, key keyStep) error {
	if key.do == keyComplete {
		return m.claim.Complete(ctx)
	}
	if key.do == keyRelease {
		if err := m.releaseStart(ctx); err != nil {
			return err
		}
		if key.attempt == 0 { // no earlier one whose copies must not run
			return m.claim.Release(ctx)
		}
	}
	return m.claim.Schedule(ctx, key.attempt, key.delay)
}

// ack ends the message, and says what became of it.
func (s *settler) ack(ctx context.Context, m *inflight) {
	if err := m.incoming.Ack(); err != nil {
		// It will come again and be told as a duplicate.
		s.config.Logger.LogAttrs(ctx, slog.LevelDebug, "ack failed", slog.String("message_id", m.id()), errorAttr(err))
	}
	p := &m.settlement.plan
	if p.success {
		s.metrics.delivered(m)
	} else {
		s.metrics.concluded(p.counted)
	}
	p.log(ctx, s.config.Logger, m)
}
