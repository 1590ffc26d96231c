package metrics

import "time"

// guarded recovers the panics of a Recorder of the host's. An instrument that can't
// be had is one that discards.
type guarded struct{ recorder Recorder }

func (g guarded) Counter(name string, labels ...string) (c Counter) {
	defer func() {
		if recover() != nil {
			c = discard{}
		}
	}()
	return guardedCounter{Timed(g.recorder.Counter(name, labels...))}
}

func (g guarded) Histogram(name string, labels ...string) (h Histogram) {
	defer func() {
		if recover() != nil {
			h = discard{}
		}
	}()
	return guardedHistogram{TimedValues(g.recorder.Histogram(name, labels...))}
}

func (g guarded) Gauge(name string, labels ...string) (gauge Gauge) {
	defer func() {
		if recover() != nil {
			gauge = discard{}
		}
	}()
	return guardedGauge{g.recorder.Gauge(name, labels...)}
}

type guardedCounter struct{ counter TimedCounter }

func (c guardedCounter) Add(n int64) {
	defer ignorePanic()
	c.counter.Add(n)
}

func (c guardedCounter) AddAt(n int64, at time.Time) {
	defer ignorePanic()
	c.counter.AddAt(n, at)
}

type guardedHistogram struct{ histogram TimedHistogram }

func (h guardedHistogram) Observe(v float64) {
	defer ignorePanic()
	h.histogram.Observe(v)
}

func (h guardedHistogram) ObserveAt(v float64, at time.Time) {
	defer ignorePanic()
	h.histogram.ObserveAt(v, at)
}

type guardedGauge struct{ gauge Gauge }

func (g guardedGauge) Set(v float64) {
	defer ignorePanic()
	g.gauge.Set(v)
}

func ignorePanic() { _ = recover() }
