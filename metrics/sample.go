package metrics

import (
	"slices"
	"strings"
)

// Kind is what sort of instrument a series is.
type Kind uint8

// The kinds.
const (
	KindCounter Kind = iota + 1
	KindHistogram
	KindGauge
)

// String is the lower-case name.
func (k Kind) String() string {
	switch k {
	case KindCounter:
		return "counter"
	case KindHistogram:
		return "histogram"
	case KindGauge:
		return "gauge"
	}
	return "unknown"
}

// Label is a key and its value.
type Label struct {
	Key   string
	Value string
}

// Sample is what one series holds at one moment.
type Sample struct {
	Name string
	Kind Kind
	// Labels are sorted by key.
	Labels []Label
	// Value is a counter's total since the start, a gauge's value, or the number of
	// values that a histogram has been given since the start.
	Value float64
	// Sum is the sum of those values; 0 for counters and gauges.
	Sum float64
	// Recent is a histogram's distribution over the window.
	Recent Distribution
}

// Distribution describes the values that a histogram was given within a window. All
// of it is 0 when there were none.
type Distribution struct {
	// Count is how many values there were.
	Count int64 `json:"count"`
	// Mean is the mean of the values, without the error of the percentiles.
	Mean float64 `json:"mean"`
	// P50, P95 and P99 are the values that 50, 95 and 99 % of all values don't
	// exceed, with an error of at most 1 %.
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Samples returns every series, sorted by name and labels.
func (c *Collector) Samples() []Sample {
	if c == nil {
		return nil
	}
	c.ready()
	type named struct {
		name   string
		kind   Kind
		series *series
	}
	var all []named
	c.mu.RLock()
	for name, family := range c.families {
		for _, series := range family.all() {
			all = append(all, named{name, family.kind, series})
		}
	}
	c.mu.RUnlock()

	frame := c.clock.frame()
	samples := make([]Sample, 0, len(all))
	for _, n := range all {
		sample := Sample{Name: n.name, Kind: n.kind, Labels: slices.Clone(n.series.labels), Value: n.series.value()}
		if h := n.series.histogram; h != nil {
			_, sample.Sum = h.totals()
			sample.Recent = h.recent(frame)
		}
		samples = append(samples, sample)
	}
	slices.SortFunc(samples, func(a, b Sample) int {
		if byName := strings.Compare(a.Name, b.Name); byName != 0 {
			return byName
		}
		return slices.CompareFunc(a.Labels, b.Labels, compareLabels)
	})
	return samples
}

// Value returns the Sample.Value of one series, and whether there is such a series.
// The labels are keys and values in turn, all of them, in any order.
func (c *Collector) Value(name string, labels ...string) (float64, bool) {
	if c == nil {
		return 0, false
	}
	c.ready()
	key := seriesKey(pair(labels))
	c.mu.RLock()
	var found *series
	if family := c.families[name]; family != nil {
		found = family.series[key]
	}
	c.mu.RUnlock()
	if found == nil {
		return 0, false
	}
	return found.value(), true
}

func (s *series) value() float64 {
	switch {
	case s.counter != nil:
		return float64(s.counter.total.Load())
	case s.histogram != nil:
		count, _ := s.histogram.totals()
		return float64(count)
	default:
		return s.gauge.value()
	}
}

// label returns the value of one label, "" if there is none.
func (s *series) label(key string) string {
	for _, label := range s.labels {
		if label.Key == key {
			return label.Value
		}
	}
	return ""
}
