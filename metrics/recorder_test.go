package metrics_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/metrics"
)

func TestDiscardAllocatesNothing(t *testing.T) {
	recorder := metrics.Guarded(nil)
	assert.Equal(t, metrics.Discard, recorder)
	counter, histogram, gauge := recorder.Counter("c", "k", "v"), recorder.Histogram("h"), recorder.Gauge("g")
	allocations := testing.AllocsPerRun(100, func() {
		counter.Add(1)
		histogram.Observe(1)
		gauge.Set(1)
		metrics.Timed(counter).AddAt(1, time.Time{})
		metrics.TimedValues(histogram).ObserveAt(1, time.Time{})
	})
	assert.Zero(t, allocations)
}

func TestGuardedKeepsARecorder(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	assert.Same(t, collector, metrics.Guarded(collector))
}

// plain has no use for the time.
type plain struct {
	added    int64
	observed float64
}

func (p *plain) Add(n int64)       { p.added += n }
func (p *plain) Observe(v float64) { p.observed += v }

func TestTimedWorksWithInstrumentsThatAreNot(t *testing.T) {
	p := &plain{}
	metrics.Timed(p).AddAt(2, time.Now())
	metrics.TimedValues(p).ObserveAt(0.5, time.Now())
	assert.Equal(t, plain{added: 2, observed: 0.5}, *p)
}

func TestTimedTellsWhatTheClockWouldHaveTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 6 * time.Second
		collector := metrics.NewCollector(metrics.CollectorConfig{Window: window})
		counter := metrics.Timed(collector.Counter(metrics.MessagesProcessedTotal, metrics.LabelOutcome, metrics.OutcomeDelivered))
		histogram := metrics.TimedValues(collector.Histogram(metrics.HandlerSeconds))
		begin := time.Now()
		counter.AddAt(1, begin)
		histogram.ObserveAt(1, begin)
		time.Sleep(window / 2)
		counter.AddAt(2, time.Now())
		histogram.ObserveAt(2, time.Now())
		// What is told too late counts as of what was told before.
		counter.AddAt(4, begin)
		histogram.ObserveAt(4, begin)
		counter.AddAt(-1, time.Now())

		snapshot := collector.Snapshot()
		assert.EqualValues(t, 7, snapshot.Processed[metrics.OutcomeDelivered])
		assert.EqualValues(t, 3, snapshot.HandlerSeconds.Count)
		time.Sleep(window/2 + window/6)
		snapshot = collector.Snapshot()
		assert.InDelta(t, 6, snapshot.ProcessedPerSecond*snapshot.WindowSeconds, 1e-6)
		assert.EqualValues(t, 2, snapshot.HandlerSeconds.Count)
	})
}
