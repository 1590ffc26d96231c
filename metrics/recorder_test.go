package metrics_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/metrics"
)

func TestDiscardAllocatesNothing(t *testing.T) {
	recorder := metrics.OrDiscard(nil)
	assert.Equal(t, metrics.Discard, recorder)
	counter, histogram, gauge := recorder.Counter("c", "k", "v"), recorder.Histogram("h"), recorder.Gauge("g")
	allocations := testing.AllocsPerRun(100, func() {
		counter.Add(1)
		histogram.Observe(1)
		gauge.Set(1)
	})
	assert.Zero(t, allocations)
}

func TestOrDiscardKeepsARecorder(t *testing.T) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	assert.Same(t, collector, metrics.OrDiscard(collector))
}
