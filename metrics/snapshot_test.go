package metrics_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/metrics"
)

func TestSnapshotOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, err := json.Marshal(metrics.NewCollector(metrics.CollectorConfig{}).Snapshot())
		require.NoError(t, err)
		assert.JSONEq(t, `{
			"at": "2000-01-01T00:00:00Z", "window_seconds": 0,
			"published_per_second": 0, "processed_per_second": 0, "published": {}, "processed": {},
			"handler_seconds": {"count": 0, "mean": 0, "p50": 0, "p95": 0, "p99": 0}, "queue_depth": {},
			"retry_rate": 0, "failure_rate": 0, "mean_attempts": 0,
			"dead_letters": 0, "dead_letters_by_reason": {}, "breakers": {}, "dedup_hit_rate": 0
		}`, utc(t, text))
	})
}

// utc makes the snapshot's time the same on every machine.
func utc(t *testing.T, text []byte) string {
	t.Helper()
	var fields map[string]any
	require.NoError(t, json.Unmarshal(text, &fields))
	at, err := time.Parse(time.RFC3339Nano, fields["at"].(string))
	require.NoError(t, err)
	fields["at"] = at.UTC().Format(time.RFC3339Nano)
	text, err = json.Marshal(fields)
	require.NoError(t, err)
	return string(text)
}

func TestSnapshotFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		add := func(name string, n int64, labels ...string) { collector.Counter(name, labels...).Add(n) }

		add(metrics.MessagesPublishedTotal, 30, metrics.LabelPriority, "high", metrics.LabelOutcome, metrics.PublishAccepted)
		add(metrics.MessagesPublishedTotal, 70, metrics.LabelPriority, "low", metrics.LabelOutcome, metrics.PublishAccepted)
		add(metrics.MessagesPublishedTotal, 5, metrics.LabelPriority, "low", metrics.LabelOutcome, metrics.PublishRejected)
		for outcome, n := range map[string]int64{
			metrics.OutcomeDelivered: 60, metrics.OutcomeRetried: 20, metrics.OutcomeDeadLettered: 20,
			metrics.OutcomeDuplicate: 10, metrics.OutcomeDeferred: 7, metrics.OutcomeAbandoned: 3,
		} {
			add(metrics.MessagesProcessedTotal, n, metrics.LabelOutcome, outcome)
		}
		for result, n := range map[string]int64{
			metrics.IdempotencyClaimed: 90, metrics.IdempotencyDuplicate: 8, metrics.IdempotencyStale: 2,
			metrics.IdempotencyBusy: 50, metrics.IdempotencyBypassed: 50,
		} {
			add(metrics.IdempotencyTotal, n, metrics.LabelResult, result)
		}
		add(metrics.DeadLettersTotal, 12, metrics.LabelReason, "exhausted")
		add(metrics.DeadLettersTotal, 8, metrics.LabelReason, "permanent")
		collector.Gauge(metrics.DeadLetters).Set(17)
		collector.Gauge(metrics.QueueDepth, metrics.LabelPriority, "urgent").Set(4)
		collector.Gauge(metrics.QueueDepth, metrics.LabelPriority, "low").Set(9)
		for range 3 {
			collector.Histogram(metrics.HandlerSeconds).Observe(0.1)
			collector.Histogram(metrics.AttemptsToSuccess).Observe(1)
		}
		collector.Histogram(metrics.HandlerSeconds).Observe(0.5)
		collector.Histogram(metrics.AttemptsToSuccess).Observe(5)
		collector.Gauge(metrics.BreakerState, metrics.LabelName, "sms").Set(metrics.BreakerOpen)
		collector.Gauge(metrics.BreakerState, metrics.LabelName, "mail").Set(metrics.BreakerHalfOpen)
		collector.Gauge(metrics.BreakerState, metrics.LabelName, "push").Set(metrics.BreakerClosed)
		collector.Gauge(metrics.BreakerState, metrics.LabelName, "odd").Set(1.5)
		add(metrics.BreakerTransitionsTotal, 2, metrics.LabelName, "sms", metrics.LabelTo, metrics.StateOpen)
		add(metrics.BreakerTransitionsTotal, 1, metrics.LabelName, "unset", metrics.LabelTo, metrics.StateClosed)

		time.Sleep(5 * time.Second)
		s := collector.Snapshot()
		assert.InDelta(t, 5, s.WindowSeconds, 1e-9)
		assert.InDelta(t, 20, s.PublishedPerSecond, 1e-9)
		assert.InDelta(t, 22, s.ProcessedPerSecond, 1e-9)
		assert.Equal(t, map[string]int64{"accepted": 100, "rejected": 5}, s.Published)
		assert.Equal(t, map[string]int64{
			"delivered": 60, "retried": 20, "dead_lettered": 20, "duplicate": 10, "deferred": 7, "abandoned": 3,
		}, s.Processed)
		assert.Equal(t, int64(4), s.HandlerSeconds.Count)
		assert.InDelta(t, 0.2, s.HandlerSeconds.Mean, 1e-9)
		assert.InEpsilon(t, 0.1, s.HandlerSeconds.P50, 0.01)
		assert.InEpsilon(t, 0.5, s.HandlerSeconds.P95, 0.01)
		assert.InEpsilon(t, 0.5, s.HandlerSeconds.P99, 0.01)
		assert.Equal(t, map[string]int64{"urgent": 4, "low": 9}, s.QueueDepth)
		assert.InDelta(t, 0.2, s.RetryRate, 1e-9)
		assert.InDelta(t, 0.25, s.FailureRate, 1e-9)
		assert.InDelta(t, 2, s.MeanAttempts, 1e-9)
		assert.Equal(t, int64(17), s.DeadLetters)
		assert.Equal(t, map[string]int64{"exhausted": 12, "permanent": 8}, s.DeadLettersByReason)
		assert.InDelta(t, 0.1, s.DedupHitRate, 1e-9)
		assert.Equal(t, map[string]metrics.Breaker{
			"sms":   {State: "open", Transitions: map[string]int64{"open": 2}},
			"mail":  {State: "half-open", Transitions: map[string]int64{}},
			"push":  {State: "closed", Transitions: map[string]int64{}},
			"odd":   {State: "1.5", Transitions: map[string]int64{}},
			"unset": {State: "closed", Transitions: map[string]int64{"closed": 1}},
		}, s.Breakers)

		// An hour later the rates forget, the totals don't.
		time.Sleep(time.Hour)
		s = collector.Snapshot()
		assert.Zero(t, s.PublishedPerSecond)
		assert.Zero(t, s.ProcessedPerSecond)
		assert.Zero(t, s.FailureRate)
		assert.Zero(t, s.RetryRate)
		assert.Zero(t, s.DedupHitRate)
		assert.Zero(t, s.MeanAttempts)
		assert.Zero(t, s.HandlerSeconds)
		assert.Equal(t, int64(60), s.Processed["delivered"])
		assert.Equal(t, int64(17), s.DeadLetters)
	})
}

func TestRatesDivideByASecondAtLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		collector.Counter(metrics.MessagesPublishedTotal, metrics.LabelOutcome, metrics.PublishAccepted).Add(10)
		time.Sleep(time.Millisecond)
		assert.InDelta(t, 10, collector.Snapshot().PublishedPerSecond, 1e-9)
	})
}
