package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// busyBackoff is how long to leave a key alone that is busy elsewhere.
var busyBackoff = retry.Exponential{Base: 50 * time.Millisecond, Max: 2 * time.Second, Jitter: retry.JitterEqual}

// serve is a worker: it takes one job after the other through the pipeline.
func (r *run) serve(ctx context.Context) {
	var current *job
	defer func() {
		if current == nil {
			return
		}
		// The handler called runtime.Goexit, which ends this goroutine. Another
		// one takes its place, and its job.
		j := current
		r.workers.Go(func() {
			r.conclude(ctx, j, r.failed(ctx, j, ErrGoexit))
			r.serve(ctx)
		})
	}()
	for {
		j, run := r.backlog.pop()
		switch {
		case j == nil:
			return
		case !run:
			r.letGo(ctx, j)
			continue
		}
		r.askAhead(ctx)
		current = j
		verdict := r.decide(ctx, j)
		current = nil
		r.conclude(ctx, j, verdict)
	}
}

// decide takes a job through the stages. A panic in any of the host's functions
// is a failed attempt.
func (r *run) decide(ctx context.Context, j *job) (v verdict) {
	defer func() {
		if value := recover(); value != nil {
			v = r.panicked(ctx, j, &PanicError{Value: value, Stack: debug.Stack()})
		}
	}()
	if v := r.open(j); v.action != proceed {
		return v
	}
	if v := r.claim(ctx, j); v.action != proceed {
		return v
	}
	if v := r.admit(j); v.action != proceed {
		return v
	}
	return r.attempt(ctx, j)
}

// open decodes the message and sees whether its time is now.
func (r *run) open(j *job) verdict {
	j.now = time.Now()
	if err := r.decode(j); err != nil {
		malformed := &MalformedError{}
		errors.As(err, &malformed)
		j.envelope = &malformed.Envelope
		j.envelope.Body = nil
		return verdict{action: bury, reason: ReasonMalformed, raw: malformed.Raw, next: j.envelope, err: err}
	}
	if j.envelope.Expired(j.now) {
		return verdict{action: bury, reason: ReasonExpired, next: j.envelope, err: errExpired}
	}
	if wait := j.envelope.NotBefore.Sub(j.now); wait > 0 {
		return verdict{action: postpone, delay: wait, next: j.envelope}
	}
	return verdict{}
}

// decode sees to it that the job has its envelope.
func (r *run) decode(j *job) error {
	if j.envelope != nil {
		return nil
	}
	envelope, err := j.incoming.Envelope()
	switch {
	case err != nil:
		return err
	case envelope.ID == "" || envelope.Recipient == "":
		return &MalformedError{Problem: "ID or Recipient is empty", Raw: envelope.Body, Envelope: *envelope}
	case len(envelope.Body) > r.config.MaxBodyBytes:
		return &MalformedError{
			Problem:  fmt.Sprintf("body has %d bytes, at most %d are allowed", len(envelope.Body), r.config.MaxBodyBytes),
			Raw:      envelope.Body,
			Envelope: *envelope,
		}
	}
	j.envelope = envelope
	r.metrics.waited(j)
	return nil
}

var errExpired = errors.New("delivery: received after ExpiresAt")

// claim takes the message's idempotency key for this attempt.
func (r *run) claim(ctx context.Context, j *job) verdict {
	if r.guard == nil {
		return verdict{}
	}
	err := j.answer
	if !j.asked || j.lease.isLost() {
		err = r.ask(ctx, j)
	}
	j.asked, j.answer = false, nil
	if err == nil {
		r.storeAnswered()
		r.metrics.claimed(j)
		return verdict{}
	}
	var known *idempotency.DuplicateError
	switch {
	case errors.As(err, &known):
		r.storeAnswered()
		if known.Stale {
			r.metrics.idempotency(metrics.IdempotencyStale)
		} else {
			r.metrics.idempotency(metrics.IdempotencyDuplicate)
		}
		return verdict{action: duplicate, err: err}
	case errors.Is(err, idempotency.ErrBusy):
		r.storeAnswered()
		r.metrics.idempotency(metrics.IdempotencyBusy)
		j.returns++
		return verdict{action: hold, delay: busyBackoff.Delay(j.returns - 1), err: err}
	case ctx.Err() != nil:
		return verdict{action: leave, err: err}
	case r.config.FailOpen:
		r.metrics.idempotency(metrics.IdempotencyBypassed)
		return verdict{}
	default:
		r.metrics.idempotency(metrics.IdempotencyDown)
		r.awaitStore(ctx, err)
		return verdict{action: yield, err: err}
	}
}

// ask asks the idempotency store for the message's key, and keeps the claim.
func (r *run) ask(ctx context.Context, j *job) error {
	id := r.config.IdempotencyKey(j.envelope.Message)
	if id == "" {
		id = j.envelope.Key() // an empty key would make duplicates of all
	}
	key := idempotency.FromID(r.config.Name, id, j.envelope.Generation)
	j.lease.renewed()
	begin := j.now
	claim, err := r.guard.Hold(ctx, key, j.envelope.Attempt, j.lease.ended)
	if r.storeFar.Load() {
		r.pace.claimed(j.tick().Sub(begin))
	}
	j.claim = claim
	return err
}

// admit asks the breaker.
func (r *run) admit(j *job) verdict {
	permit, err := r.allow(j)
	if err == nil {
		j.permit = permit
		return verdict{}
	}
	if r.config.KeyBreakers == nil {
		r.awaitBreaker()
		return verdict{action: yield, err: err}
	}
	wait := time.Second
	var open *breaker.OpenError
	if errors.As(err, &open) {
		wait = max(wait, open.RetryIn)
	}
	return verdict{action: postpone, delay: wait, next: j.envelope, err: err}
}

func (r *run) allow(j *job) (breaker.Permit, error) {
	switch {
	case r.config.Breaker != nil:
		return r.config.Breaker.Allow()
	case r.config.KeyBreakers != nil:
		return r.config.KeyBreakers.Get(r.config.BreakerKey(j.envelope.Message)).Allow()
	}
	return breaker.Permit{}, nil
}

// panicked decides what a panic in one of the host's functions leads to.
func (r *run) panicked(ctx context.Context, j *job, failure *PanicError) verdict {
	r.config.Logger.LogAttrs(ctx, slog.LevelError, "panic",
		slog.String("message_id", j.id()), slog.Any("panic", failure.Value), slog.String("stack", string(failure.Stack)))
	if j.envelope == nil { // the transport's decoding
		j.envelope = &Envelope{}
		return verdict{action: bury, reason: ReasonMalformed, next: j.envelope, err: failure}
	}
	return r.failed(ctx, j, failure)
}

// attempt runs the handler, again at once while its errors are transient.
func (r *run) attempt(ctx context.Context, j *job) verdict {
	for again := 0; ; again++ {
		err := r.call(ctx, j)
		if err == nil {
			j.permit.Done(breaker.Success)
			return verdict{action: deliver}
		}
		if again >= r.config.ImmediateRetries || ctx.Err() != nil || j.lease.isLost() || r.classify(err) != retry.ClassTransient {
			return r.failed(ctx, j, err)
		}
		j.permit.Done(breaker.Failure)
		r.metrics.retried(retry.ClassTransient)
		permit, open := r.allow(j)
		if open != nil {
			return r.failed(ctx, j, err)
		}
		j.permit = permit
	}
}

// call runs the handler once.
func (r *run) call(ctx context.Context, j *job) error {
	begin := j.tick()
	limited := &deadlineContext{parent: ctx, deadline: begin.Add(r.config.HandlerTimeout), envelope: j.envelope}
	j.lease.run(limited)
	r.handlers.Add(1)
	defer func() {
		r.handlers.Add(-1)
		j.tick()
		r.metrics.handled(j, begin)
		if r.storeFar.Load() {
			r.pace.handled(j.now.Sub(begin))
		}
		j.lease.run(nil)
		limited.end()
	}()
	return r.handler(limited, j.envelope.Message)
}

// failed decides what a failed attempt leads to.
func (r *run) failed(ctx context.Context, j *job, err error) verdict {
	if ctx.Err() != nil || j.lease.isLost() {
		// Shutdown or a lost lease: whatever the handler says, it was not its
		// fault, and the attempt does not count.
		j.permit.Done(breaker.Abandoned)
		return verdict{action: leave, err: err}
	}
	class := r.classify(err)
	n := j.envelope.Attempt
	next := j.envelope.failed(time.Now(), err)
	v := verdict{next: &next, err: err}
	if class == retry.ClassPermanent {
		j.permit.Done(breaker.Answered)
		v.action, v.reason = bury, ReasonPermanent
		return v
	}
	j.permit.Done(breaker.Failure)
	if !r.config.Retry.CanRetry(n) {
		v.action, v.reason = bury, ReasonExhausted
		return v
	}
	v.action, v.delay = retryThen, r.config.Retry.Delay(n)
	if asked, ok := retry.DelayOf(err); ok {
		v.delay = min(asked, r.config.MaxRetryAfter)
	}
	r.metrics.retried(class)
	return v
}

// classify asks the classifier, whose rules are the host's: a panic there makes
// the error one like any other.
func (r *run) classify(err error) (class retry.Class) {
	defer func() {
		if recover() != nil {
			class = retry.ClassRecoverable
		}
	}()
	return r.config.Classifier.Classify(err)
}
