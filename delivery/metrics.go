package delivery

import (
	"context"
	"errors"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// depthInterval is how often the transport is asked for its depth.
const depthInterval = 5 * time.Second

// publisherMetrics holds a Publisher's instruments.
type publisherMetrics struct {
	outcomes map[string][4]metrics.Counter // by outcome and level
	seconds  metrics.Histogram
}

func newPublisherMetrics(recorder metrics.Recorder) publisherMetrics {
	recorder = metrics.Guarded(recorder)
	m := publisherMetrics{
		outcomes: make(map[string][4]metrics.Counter),
		seconds:  recorder.Histogram(metrics.PublishSeconds),
	}
	for _, outcome := range []string{metrics.PublishAccepted, metrics.PublishRejected, metrics.PublishUnknown, metrics.PublishDuplicate} {
		var counters [4]metrics.Counter
		for _, priority := range Priorities() {
			counters[level(priority)] = recorder.Counter(metrics.MessagesPublishedTotal,
				metrics.LabelPriority, priority.String(), metrics.LabelOutcome, outcome)
		}
		m.outcomes[outcome] = counters
	}
	return m
}

// published counts a call's messages. A nil errs means that all were accepted.
func (m *publisherMetrics) published(batch []Envelope, errs []error, took time.Duration) {
	m.seconds.Observe(took.Seconds())
	var accepted [4]int64
	for i := range batch {
		level := level(batch[i].Priority)
		if errs == nil || errs[i] == nil {
			accepted[level]++
			continue
		}
		outcome := metrics.PublishRejected
		switch {
		case errors.Is(errs[i], ErrOutcomeUnknown):
			outcome = metrics.PublishUnknown
		case errors.Is(errs[i], ErrDuplicate):
			outcome = metrics.PublishDuplicate
		}
		m.outcomes[outcome][level].Add(1)
	}
	for level, count := range accepted {
		if count > 0 {
			m.outcomes[metrics.PublishAccepted][level].Add(count)
		}
	}
}

// consumerMetrics holds a Consumer's instruments.
type consumerMetrics struct {
	recorder  metrics.Recorder
	processed map[string]metrics.Counter // by outcome
	retries   [3]metrics.Counter         // by class
	results   map[string]metrics.Counter // of the idempotency store
	claims    metrics.TimedCounter       // what every message counts goes without the maps
	successes metrics.TimedCounter
	handler   metrics.TimedHistogram
	wait      metrics.TimedHistogram
	attempts  metrics.TimedHistogram
	running   metrics.Gauge
	overdue   metrics.Gauge
}

func newConsumerMetrics(recorder metrics.Recorder) *consumerMetrics {
	recorder = metrics.Guarded(recorder)
	m := &consumerMetrics{
		recorder:  recorder,
		processed: make(map[string]metrics.Counter),
		results:   make(map[string]metrics.Counter),
		handler:   metrics.TimedValues(recorder.Histogram(metrics.HandlerSeconds)),
		wait:      metrics.TimedValues(recorder.Histogram(metrics.QueueWaitSeconds)),
		attempts:  metrics.TimedValues(recorder.Histogram(metrics.AttemptsToSuccess)),
		running:   recorder.Gauge(metrics.HandlersRunning),
		overdue:   recorder.Gauge(metrics.HandlersOverdue),
	}
	for _, outcome := range []string{
		metrics.OutcomeDelivered, metrics.OutcomeRetried, metrics.OutcomeDeadLettered,
		metrics.OutcomeDuplicate, metrics.OutcomeDeferred, metrics.OutcomePostponed, metrics.OutcomeAbandoned,
	} {
		m.processed[outcome] = recorder.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, outcome)
	}
	for _, result := range []string{
		metrics.IdempotencyClaimed, metrics.IdempotencyDuplicate, metrics.IdempotencyStale, metrics.IdempotencyBusy,
		metrics.IdempotencyLost, metrics.IdempotencyBypassed, metrics.IdempotencyDown,
	} {
		m.results[result] = recorder.Counter(metrics.IdempotencyTotal, metrics.LabelResult, result)
	}
	m.successes = metrics.Timed(m.processed[metrics.OutcomeDelivered])
	m.claims = metrics.Timed(m.results[metrics.IdempotencyClaimed])
	for _, class := range []retry.Class{retry.ClassRecoverable, retry.ClassTransient, retry.ClassPermanent} {
		m.retries[class] = recorder.Counter(metrics.RetriesTotal, metrics.LabelClass, class.String())
	}
	return m
}

// concluded counts an outcome, one of the metrics.Outcome constants.
func (m *consumerMetrics) concluded(outcome string) { m.processed[outcome].Add(1) }

// delivered counts a success.
func (m *consumerMetrics) delivered(message *inflight) {
	m.successes.AddAt(1, message.now)
	m.attempts.ObserveAt(float64(message.attempt()), message.now)
}

func (m *consumerMetrics) claimed(message *inflight) { m.claims.AddAt(1, message.now) }

// waited notes how long a message waited for its first attempt.
func (m *consumerMetrics) waited(message *inflight) {
	if message.envelope.Attempt == 0 && message.envelope.Generation == 0 {
		begin := message.envelope.CreatedAt
		if message.envelope.NotBefore.After(begin) {
			begin = message.envelope.NotBefore
		}
		m.wait.ObserveAt(max(0, message.now.Sub(begin).Seconds()), message.now)
	}
}

// handled notes a run of the handler that ended now.
func (m *consumerMetrics) handled(message *inflight, begin time.Time) {
	m.handler.ObserveAt(message.now.Sub(begin).Seconds(), message.now)
}

func (m *consumerMetrics) handlersRun(running, overdue int) {
	m.running.Set(float64(running))
	m.overdue.Set(float64(overdue))
}

func (m *consumerMetrics) retried(class retry.Class) { m.retries[class].Add(1) }
func (m *consumerMetrics) idempotency(result string) { m.results[result].Add(1) }

// watchDepth keeps the gauges of what waits in the transport, until ctx ends.
func (m *consumerMetrics) watchDepth(ctx context.Context, depther Depther, transport *dependency) {
	for {
		asking, done := context.WithTimeout(ctx, depthInterval)
		depths, err := depther.Depth(asking)
		done()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			transport.failed(ctx, err)
		} else {
			transport.answered(ctx)
			for _, priority := range Priorities() {
				m.depth(priority, depths[priority])
			}
		}
		if !retry.Wait(ctx.Done(), depthInterval) {
			return
		}
	}
}

func (m *consumerMetrics) depth(priority Priority, depth Depth) {
	m.recorder.Gauge(metrics.QueueDepth, metrics.LabelPriority, priority.String()).Set(float64(depth.Messages))
	m.recorder.Gauge(metrics.QueueOldestSeconds, metrics.LabelPriority, priority.String()).Set(depth.Oldest.Seconds())
}

func (m *consumerMetrics) breakerState(name string, state breaker.State) {
	m.recorder.Gauge(metrics.BreakerState, metrics.LabelName, name).Set(breakerGauge(state))
}

func (m *consumerMetrics) breakersOpen(name string, open int) {
	m.recorder.Gauge(metrics.BreakersOpen, metrics.LabelName, name).Set(float64(open))
}

func (m *consumerMetrics) breakerChanged(change breaker.Change) {
	m.recorder.Counter(metrics.BreakerTransitionsTotal, metrics.LabelName, change.Name, metrics.LabelTo, change.To.String()).Add(1)
}

func breakerGauge(state breaker.State) float64 {
	switch state {
	case breaker.Open:
		return metrics.BreakerOpen
	case breaker.HalfOpen:
		return metrics.BreakerHalfOpen
	default:
		return metrics.BreakerClosed
	}
}
