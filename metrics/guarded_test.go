package metrics_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/metrics"
)

// panicking is a host's recorder that panics at its instruments, or when these are
// asked for.
type panicking struct{ instruments bool }

func (p panicking) panic(instrument bool) panicking {
	if p.instruments == instrument {
		panic("recorder")
	}
	return p
}

func (p panicking) Counter(string, ...string) metrics.Counter     { return p.panic(false) }
func (p panicking) Histogram(string, ...string) metrics.Histogram { return p.panic(false) }
func (p panicking) Gauge(string, ...string) metrics.Gauge         { return p.panic(false) }
func (p panicking) Add(int64)                                     { p.panic(true) }
func (p panicking) Observe(float64)                               { p.panic(true) }
func (p panicking) Set(float64)                                   { p.panic(true) }

func TestGuarded(t *testing.T) {
	for _, instruments := range []bool{false, true} {
		recorder := metrics.Guarded(panicking{instruments: instruments})
		assert.NotPanics(t, func() {
			recorder.Counter("c").Add(1)
			metrics.Timed(recorder.Counter("c")).AddAt(1, time.Now())
			recorder.Histogram("h").Observe(1)
			metrics.TimedValues(recorder.Histogram("h")).ObserveAt(1, time.Now())
			recorder.Gauge("g").Set(1)
		})
	}
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	assert.Same(t, collector, metrics.Guarded(collector), "what does not panic costs nothing")
	assert.Equal(t, metrics.Discard, metrics.Guarded(nil))
	assert.Equal(t, metrics.Guarded(panicking{}), metrics.Guarded(metrics.Guarded(panicking{})))
}
