package metrics

// Recorder hands out instruments. All methods may be called by any number of
// goroutines at once, and never return nil.
//
// Labels are alternating keys and values. Asking again with the same name and
// the same labels, in whatever order, gives the same instrument. Ask once and
// keep the instrument: asking may cost a look-up and an allocation, using does
// not.
type Recorder interface {
	Counter(name string, labels ...string) Counter
	Histogram(name string, labels ...string) Histogram
	Gauge(name string, labels ...string) Gauge
}

// Counter is a sum that only grows.
type Counter interface {
	// Add adds n. What is negative is ignored.
	Add(n int64)
}

// Histogram is a distribution of values.
type Histogram interface {
	// Observe adds one value, in the unit that the metric's name says.
	Observe(v float64)
}

// Gauge is a value that goes up and down.
type Gauge interface {
	// Set makes v the current value.
	Set(v float64)
}

// Discard is a Recorder that keeps nothing and costs nothing.
var Discard Recorder = discard{}

// OrDiscard returns recorder, or Discard in place of nil.
func OrDiscard(recorder Recorder) Recorder {
	if recorder == nil {
		return Discard
	}
	return recorder
}

// discard is its own instrument of every kind.
type discard struct{}

func (discard) Counter(string, ...string) Counter     { return discard{} }
func (discard) Histogram(string, ...string) Histogram { return discard{} }
func (discard) Gauge(string, ...string) Gauge         { return discard{} }
func (discard) Add(int64)                             {}
func (discard) Observe(float64)                       {}
func (discard) Set(float64)                           {}
