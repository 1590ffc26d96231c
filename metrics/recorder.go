package metrics

import "time"

// Recorder gives instruments. All methods, those of the instruments too, may be
// called by any number of goroutines at once. None returns nil.
//
// Labels are keys and values in turn. The same name with the same labels, in
// whatever order, gives the same instrument. Keep the instrument: to get it may
// cost a look-up and an allocation, to use it costs neither.
type Recorder interface {
	Counter(name string, labels ...string) Counter
	Histogram(name string, labels ...string) Histogram
	Gauge(name string, labels ...string) Gauge
}

// Counter is a sum that only grows.
type Counter interface {
	// Add adds n. A negative n is ignored.
	Add(n int64)
}

// Histogram is a distribution of values.
type Histogram interface {
	// Observe adds one value, in the unit that the metric's name tells.
	Observe(v float64)
}

// TimedCounter is an ability that a Counter may have: its caller passes the time, so
// that it need not read the clock. A time before one that was passed earlier counts
// as the later one.
type TimedCounter interface {
	Counter
	// AddAt is Add for what happened at a time shortly before now.
	AddAt(n int64, at time.Time)
}

// TimedHistogram is the same ability of a Histogram.
type TimedHistogram interface {
	Histogram
	// ObserveAt is Observe for what happened at a time shortly before now.
	ObserveAt(v float64, at time.Time)
}

// Timed returns c as a TimedCounter. If c has not the ability, the times that are
// passed are ignored.
func Timed(c Counter) TimedCounter {
	if timed, ok := c.(TimedCounter); ok {
		return timed
	}
	return untimedCounter{c}
}

// TimedValues is Timed for a Histogram.
func TimedValues(h Histogram) TimedHistogram {
	if timed, ok := h.(TimedHistogram); ok {
		return timed
	}
	return untimedHistogram{h}
}

type untimedCounter struct{ Counter }

func (c untimedCounter) AddAt(n int64, _ time.Time) { c.Add(n) }

type untimedHistogram struct{ Histogram }

func (h untimedHistogram) ObserveAt(v float64, _ time.Time) { h.Observe(v) }

// Gauge is a value that goes up and down.
type Gauge interface {
	// Set makes v the current value.
	Set(v float64)
}

// Discard is a Recorder that keeps nothing and costs nothing.
var Discard Recorder = discard{}

// Guarded returns a recorder whose panics do not reach its callers, and Discard in
// place of nil. What counts and measures has no say in what is counted.
func Guarded(recorder Recorder) Recorder {
	switch recorder.(type) {
	case nil:
		return Discard
	case *Collector, discard, guarded:
		return recorder
	}
	return guarded{recorder}
}

// discard is its own instrument of every kind.
type discard struct{}

func (discard) Counter(string, ...string) Counter     { return discard{} }
func (discard) Histogram(string, ...string) Histogram { return discard{} }
func (discard) Gauge(string, ...string) Gauge         { return discard{} }
func (discard) Add(int64)                             {}
func (discard) AddAt(int64, time.Time)                {}
func (discard) Observe(float64)                       {}
func (discard) ObserveAt(float64, time.Time)          {}
func (discard) Set(float64)                           {}
