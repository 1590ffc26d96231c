package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// busyBackoff is how long to leave a key alone that is busy elsewhere.
var busyBackoff = retry.Exponential{Base: 50 * time.Millisecond, Max: 2 * time.Second, Jitter: retry.JitterEqual}

// lookUpTimeout bounds the look-up of a record before an attempt.
const lookUpTimeout = time.Second

var errExpired = errors.New("delivery: received after ExpiresAt")

// stages take a message from its receipt to an outcome: look at the receipt, decode,
// claim, look-up, the count of crashes, breaker, attempt, in this order. They know
// neither queue nor subscription, and settle nothing.
type stages struct {
	config   *ConsumerConfig
	handler  Handler
	guard    *idempotency.Guard // nil without an idempotency store
	keys     *dependency        // of the idempotency store
	crashes  *crashes
	metrics  *consumerMetrics
	handlers atomic.Int64  // handlers running now
	busy     chan struct{} // gets one when the first of them begins
	warned   sync.Once     // of acknowledgments that are not awaited
	strayed  sync.Once     // warned of records that are not kept up
}

func newStages(c *Consumer, keys *dependency, suspects *suspects) *stages {
	return &stages{
		config: &c.config, handler: c.handler, guard: c.guard, keys: keys, crashes: newCrashes(c, suspects),
		metrics: c.metrics, busy: make(chan struct{}, 1),
	}
}

// process takes a message through the stages. A panic in one of the host's
// functions is a failed attempt, unless the handler had succeeded before it.
func (s *stages) process(ctx context.Context, m *inflight) (o outcome) {
	defer func() {
		if value := recover(); value != nil {
			o = s.panicked(ctx, m, newPanicError(value))
		}
		o.at = m.now
	}()
	if m.isStale() {
		return outcome{kind: outcomeAbandoned, err: ErrStale}
	}
	if o := s.decode(m); o.kind != undecided {
		return o
	}
	if o := s.claim(ctx, m); o.kind != undecided {
		return o
	}
	if o := s.lookUp(ctx, m); o.kind != undecided {
		return o
	}
	if o := s.crashes.start(ctx, m); o.kind != undecided {
		return o
	}
	if o := s.admit(m); o.kind != undecided {
		m.forgetStart(ctx)
		return o
	}
	if o := s.crashes.blame(m); o.kind != undecided {
		return o
	}
	return s.attempt(ctx, m)
}

// decode reads the message and sees whether its time is now.
func (s *stages) decode(m *inflight) outcome {
	m.now = time.Now()
	if err := s.read(m); err != nil {
		malformed := &MalformedError{}
		errors.As(err, &malformed)
		m.envelope = &malformed.Envelope
		m.envelope.Body = nil
		return outcome{kind: outcomeGivenUp, reason: ReasonMalformed, raw: malformed.Raw, next: m.envelope, err: err}
	}
	if m.envelope.Expired(m.now) {
		return outcome{kind: outcomeGivenUp, reason: ReasonExpired, next: m.envelope, err: errExpired}
	}
	if wait := m.envelope.NotBefore.Sub(m.now); wait > 0 {
		return outcome{kind: outcomePostponed, delay: wait, next: m.envelope}
	}
	return outcome{}
}

// read sees to it that the message has its envelope.
func (s *stages) read(m *inflight) error {
	if m.envelope != nil {
		return nil
	}
	envelope, err := m.incoming.Envelope()
	switch {
	case err != nil:
		return err
	case envelope.ID == "" || envelope.Recipient == "":
		return &MalformedError{Problem: "ID or Recipient is empty", Raw: envelope.Body, Envelope: *envelope}
	case len(envelope.Body) > s.config.MaxBodyBytes:
		return &MalformedError{
			Problem:  fmt.Sprintf("body has %d bytes, at most %d are allowed", len(envelope.Body), s.config.MaxBodyBytes),
			Raw:      envelope.Body,
			Envelope: *envelope,
		}
	}
	m.envelope, m.came = envelope, envelope.Attempt
	s.metrics.waited(m)
	if envelope.RequireAck && s.config.Store == nil {
		s.warnOfAcks(m)
	}
	if envelope.recorded && s.config.Store == nil {
		s.warnOfRecords(m)
	}
	return nil
}

// warnOfRecords says once that publishers keep records, and this consumer does not
// tell them what becomes of the messages.
func (s *stages) warnOfRecords(m *inflight) {
	s.strayed.Do(func() {
		s.config.Logger.LogAttrs(context.Background(), slog.LevelWarn,
			"records not kept up", slog.String("message_id", m.id()), slog.String("want", "ConsumerConfig.Store, as the publisher has"))
	})
}

// warnOfAcks says once that an acknowledgment which was asked for is not awaited.
func (s *stages) warnOfAcks(m *inflight) {
	s.warned.Do(func() {
		s.config.Logger.LogAttrs(context.Background(), slog.LevelWarn,
			"acknowledgments not awaited", slog.String("message_id", m.id()), slog.String("want", "ConsumerConfig.Store"))
	})
}

// claim takes the message's idempotency key for this attempt.
func (s *stages) claim(ctx context.Context, m *inflight) outcome {
	if s.guard == nil || m.claim != nil && !m.unsure && !m.lease.isLost() {
		return outcome{}
	}
	err := s.holdKey(ctx, m)
	if err == nil {
		s.keys.answered(ctx)
		s.metrics.claimed(m)
		return outcome{}
	}
	var known *idempotency.DuplicateError
	switch {
	case errors.As(err, &known):
		s.keys.answered(ctx)
		result := metrics.IdempotencyDuplicate
		if known.Stale {
			result = metrics.IdempotencyStale
		}
		s.metrics.idempotency(result)
		duplicate := outcome{kind: outcomeDuplicate, err: err}
		if known.Of != m.envelope.ID {
			duplicate.of = known.Of
		}
		return duplicate
	case errors.Is(err, idempotency.ErrBusy):
		s.keys.answered(ctx)
		s.metrics.idempotency(metrics.IdempotencyBusy)
		m.busy++
		return outcome{kind: outcomeBusy, delay: busyBackoff.Delay(m.busy - 1), err: err}
	case ctx.Err() != nil:
		return outcome{kind: outcomeAbandoned, err: err}
	case s.config.FailOpen:
		s.metrics.idempotency(metrics.IdempotencyBypassed)
		return outcome{}
	}
	s.metrics.idempotency(metrics.IdempotencyDown)
	return outcome{kind: outcomeKeysDown, err: err}
}

// holdKey claims the message's key. A key that another message has which was
// cancelled between two attempts is that one's for good; the next message has the
// key after it, which again only one can have.
func (s *stages) holdKey(ctx context.Context, m *inflight) error {
	if err := m.release(ctx); err != nil {
		return err
	}
	id, holder := s.config.IdempotencyKey(m.envelope.Message), ""
	switch id {
	case "":
		id = m.envelope.ID // one key for all would make duplicates of all
	case m.envelope.ID:
	default: // other messages may have the key
		holder = m.envelope.ID
	}
	key := idempotency.FromID(s.config.Name, id, m.envelope.Generation)
	for {
		m.claim, m.unsure = nil, false
		m.lease.renewed()
		err := guarded(func() (err error) {
			m.key = key
			m.claim, err = s.guard.Hold(ctx, key, holder, m.envelope.Attempt, m.lease.ended)
			return err
		})
		if err == nil {
			return nil
		}
		var known *idempotency.DuplicateError
		if !errors.As(err, &known) || !known.Stale || known.Of == "" || known.Of == m.envelope.ID {
			return err
		}
		limited := within(ctx, m.tick(), lookUpTimeout)
		gone := false
		lookUp := guarded(func() (err error) {
			gone, err = cancelled(limited, s.config.Store, known.Of)
			return err
		})
		limited.end()
		switch {
		case lookUp != nil:
			// It may be nobody's duplicate: that will be seen when the store answers.
			return fmt.Errorf("%w: look up message %s: %w", idempotency.ErrBusy, known.Of, lookUp)
		case !gone:
			return err
		}
		key.Scope = afterScope(s.config.Name, known.Of)
	}
}

// lookUp sees whether the end user has acknowledged a message whose retry was on its
// way already. A first attempt comes too early for that, and a store that does not
// answer holds up no attempt: it holds up the settlement.
func (s *stages) lookUp(ctx context.Context, m *inflight) outcome {
	if m.envelope.Attempt == 0 || !s.config.awaitsAck(&m.envelope.Message) {
		return outcome{}
	}
	limited := within(ctx, m.tick(), lookUpTimeout)
	defer limited.end()
	var known Record
	err := guarded(func() error {
		records, errs := getEach(limited, s.config.Store, m.envelope.ID)
		known = records[0]
		return errs[0]
	})
	if err != nil || !known.Status.Final() {
		return outcome{}
	}
	return outcome{kind: outcomeOvertaken, final: true, err: &LateError{
		ID: known.ID, Status: known.Status, Generation: known.Generation, RetryCount: known.RetryCount,
	}}
}

// admit asks the breaker.
func (s *stages) admit(m *inflight) outcome {
	permit, err := s.allow(m)
	if err == nil {
		m.permit = permit
		return outcome{}
	}
	if s.config.KeyBreakers == nil {
		return outcome{kind: outcomeBreakerOpen, err: err}
	}
	wait := time.Second
	var open *breaker.OpenError
	if errors.As(err, &open) {
		wait = max(wait, open.RetryIn)
	}
	return outcome{kind: outcomePostponed, delay: wait, next: m.envelope, err: err}
}

func (s *stages) allow(m *inflight) (breaker.Permit, error) {
	switch {
	case s.config.Breaker != nil:
		return s.config.Breaker.Allow()
	case s.config.KeyBreakers != nil:
		return s.config.KeyBreakers.Get(s.config.BreakerKey(m.envelope.Message)).Allow()
	}
	return breaker.Permit{}, nil
}

// attempt runs the handler, again at once while its errors are transient.
func (s *stages) attempt(ctx context.Context, m *inflight) outcome {
	for again := 0; ; again++ {
		err := s.call(ctx, m)
		if err == nil {
			m.permit.Done(breaker.Success)
			return outcome{kind: outcomeDelivered}
		}
		class := classify(&s.config.Classifier, err)
		switch {
		case class == retry.ClassLater:
			return s.later(ctx, m, err)
		case again >= s.config.ImmediateRetries, ctx.Err() != nil, m.lease.isLost(), class != retry.ClassTransient:
			return s.failed(ctx, m, err)
		}
		m.permit.Done(breaker.Failure)
		permit, open := s.allow(m)
		if open != nil {
			return s.failed(ctx, m, err)
		}
		m.permit = permit
	}
}

// call runs the handler once.
func (s *stages) call(ctx context.Context, m *inflight) error {
	begin := m.tick()
	limited := &lazyContext{parent: ctx, deadline: begin.Add(s.config.HandlerTimeout), envelope: m.envelope}
	m.lease.run(limited)
	m.running.begin(m.envelope, limited.deadline)
	if s.handlers.Add(1) == 1 {
		select {
		case s.busy <- struct{}{}:
		default:
		}
	}
	defer func() {
		s.handlers.Add(-1)
		m.running.end()
		m.lease.run(nil)
		limited.end()
		m.tick()
		s.metrics.handled(m, begin)
	}()
	err := s.handler(limited, m.envelope.Message)
	m.effective = err == nil
	return err
}

// panicked says what a panic in one of the host's functions leads to.
func (s *stages) panicked(ctx context.Context, m *inflight, failure *PanicError) outcome {
	s.config.Logger.LogAttrs(ctx, slog.LevelError, "host function panicked",
		slog.String("message_id", m.id()), slog.String("panic", fmt.Sprint(failure.Value)), slog.String("stack", string(failure.Stack)))
	switch {
	case m.effective:
		return outcome{kind: outcomeDelivered}
	case m.envelope == nil: // the transport's decoding
		m.envelope = &Envelope{}
		return outcome{kind: outcomeGivenUp, reason: ReasonMalformed, next: m.envelope, err: failure}
	}
	return s.failed(ctx, m, failure)
}

// exited says what a handler that called runtime.Goexit leads to, or another
// function of the host's after it.
func (s *stages) exited(ctx context.Context, m *inflight) outcome {
	o := outcome{kind: outcomeDelivered}
	if !m.effective {
		o = s.failed(ctx, m, ErrGoexit)
	}
	o.at = m.now
	return o
}

// failed says what a failed attempt leads to.
func (s *stages) failed(ctx context.Context, m *inflight, err error) outcome {
	if ctx.Err() != nil || m.lease.isLost() || s.guard == nil && m.isStale() {
		// Shutdown or a lost lease: whatever the handler says, it was not its
		// fault, and the attempt does not count. Nor does that of a stale receipt
		// without a key: the message comes again, and a retry of this copy would be a
		// second chain of retries.
		m.permit.Done(breaker.Abandoned)
		return outcome{kind: outcomeAbandoned, err: err}
	}
	class := classify(&s.config.Classifier, err)
	if class == retry.ClassLater { // a panic with such an error is a failure all the same
		class = retry.ClassRecoverable
	}
	next := m.envelope.failed(time.Now(), err)
	if class == retry.ClassPermanent {
		m.permit.Done(breaker.Answered)
		return outcome{kind: outcomeGivenUp, reason: ReasonPermanent, next: &next, err: err}
	}
	m.permit.Done(breaker.Failure)
	delay, allowed, fault := retryAfter(s.config.Retry, m.envelope.Attempt)
	if !allowed {
		if fault != nil {
			err = errors.Join(errors.New(textOf(err)), fault)
		}
		return outcome{kind: outcomeGivenUp, reason: ReasonExhausted, next: &next, err: err}
	}
	if asked, ok := askedDelay(err); ok {
		delay = min(asked, s.config.MaxRetryAfter)
	}
	s.metrics.retried(class)
	return outcome{kind: outcomeFailed, delay: delay, next: &next, err: err}
}

// The bounds of the wait that a handler may ask for by retry.Later. Nothing is counted,
// so without the first one it could run again and again without a pause; the second one
// keeps times within what transports and stores can keep.
const (
	minLater = time.Second
	maxLater = 365 * 24 * time.Hour
)

// later says what becomes of a message that the handler does not want now. That is no
// failed attempt, and nothing that anybody counts. The message comes back when it
// expires at the latest, to be given up.
func (s *stages) later(ctx context.Context, m *inflight, err error) outcome {
	if ctx.Err() != nil || m.lease.isLost() || m.isStale() {
		// It comes again by itself. A copy of a stale one would be a second chain.
		m.permit.Done(breaker.Abandoned)
		return outcome{kind: outcomeAbandoned, err: err}
	}
	m.permit.Done(breaker.Answered)
	m.forgetStart(ctx)
	delay, asked := askedDelay(err)
	if !asked { // a rule of the host's says that it is no failure, and not when
		_ = guarded(func() error {
			delay = s.config.Retry.Delay(m.envelope.Attempt)
			return nil
		})
	}
	delay = min(max(delay, minLater), maxLater)
	if end := m.envelope.ExpiresAt; !end.IsZero() {
		delay = min(delay, max(0, end.Sub(m.now)))
	}
	next := *m.envelope
	next.Crashes = 0 // it has come to an end
	return outcome{kind: outcomeLater, delay: delay, next: &next, err: err}
}
