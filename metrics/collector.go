package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrConfig means that a configuration can't be used; the text names every field.
var ErrConfig = errors.New("metrics: invalid config")

// Defaults and bounds of CollectorConfig.
const (
	defaultWindow    = time.Minute
	minWindow        = time.Second
	maxWindow        = 24 * time.Hour
	defaultMaxSeries = 1000
)

// OtherSeries is the value of every label of the series into which a name's
// series over CollectorConfig.MaxSeries are folded.
const OtherSeries = "other"

// CollectorConfig configures a Collector.
type CollectorConfig struct {
	// Window is the time that rates and distributions are computed over. Default
	// 1 min; 1 s to 24 h.
	Window time.Duration
	// MaxSeries bounds how many label sets one name may have, so that labels
	// made from data can't fill the memory. All further ones share one series,
	// whose label values are OtherSeries; a gauge among them has the value that any
	// of them set last. At least 1. Default 1000.
	MaxSeries int
}

// Collector is a Recorder that keeps everything in memory, to be read with
// Snapshot, Samples and Value. All methods may be called by any number of
// goroutines at once. The zero Collector has the default configuration, a nil
// one keeps nothing.
//
// A counter takes about 200 bytes. A histogram that is used takes 36 KB for each
// sixth of the window, and for each of up to eight processors.
type Collector struct {
	config CollectorConfig
	fault  error

	once  sync.Once
	clock clock

	mu       sync.RWMutex
	families map[string]*family
}

var _ Recorder = (*Collector)(nil)

// family is all series of one name, by seriesKey.
type family struct {
	kind   Kind
	series map[string]*series
}

// series is one instrument with its labels; the family's kind says which of
// the three is set.
type series struct {
	labels    []Label
	counter   *counter
	histogram *histogram
	gauge     *gauge
}

// NewCollector returns a Collector. It doesn't fail: a faulty config is returned by
// Err, and the Collector works with defaults in place of the faulty fields.
func NewCollector(config CollectorConfig) *Collector {
	c := &Collector{config: config}
	var faults []error
	if w := config.Window; w != 0 && (w < minWindow || w > maxWindow) {
		faults = append(faults, fmt.Errorf("%w: Window is %s, want %s to %s", ErrConfig, w, minWindow, maxWindow))
		c.config.Window = 0
	}
	if config.MaxSeries < 0 {
		faults = append(faults, fmt.Errorf("%w: MaxSeries is %d, want at least 1", ErrConfig, config.MaxSeries))
		c.config.MaxSeries = 0
	}
	c.fault = errors.Join(faults...)
	c.ready()
	return c
}

// ready fills in the defaults, also of a zero Collector.
func (c *Collector) ready() {
	c.once.Do(func() {
		c.config.Window = cmp.Or(c.config.Window, defaultWindow)
		c.config.MaxSeries = cmp.Or(c.config.MaxSeries, defaultMaxSeries)
		c.clock = clock{start: time.Now(), length: c.config.Window / frames}
		c.families = make(map[string]*family)
	})
}

// Err is nil, or says what is wrong with the config; it matches ErrConfig.
func (c *Collector) Err() error {
	if c == nil {
		return nil
	}
	return c.fault
}

// Counter implements Recorder. A name that is a histogram or a gauge already
// gives an instrument that keeps nothing.
func (c *Collector) Counter(name string, labels ...string) Counter {
	if s := c.bind(KindCounter, name, labels); s != nil {
		return s.counter
	}
	return discard{}
}

// Histogram implements Recorder. A name that is a counter or a gauge already
// gives an instrument that keeps nothing.
//
// Values are kept in millionths, with an error of at most 1 %. A negative value
// counts as 0, one above 1,000,000 as 1,000,000, and NaN is ignored.
func (c *Collector) Histogram(name string, labels ...string) Histogram {
	if s := c.bind(KindHistogram, name, labels); s != nil {
		return s.histogram
	}
	return discard{}
}

// Gauge implements Recorder. A name that is a counter or a histogram already
// gives an instrument that keeps nothing. Setting a gauge to NaN changes
// nothing.
func (c *Collector) Gauge(name string, labels ...string) Gauge {
	if s := c.bind(KindGauge, name, labels); s != nil {
		return s.gauge
	}
	return discard{}
}

// bind finds or makes a series. nil means that nothing is to be kept.
func (c *Collector) bind(kind Kind, name string, flat []string) *series {
	if c == nil {
		return nil
	}
	c.ready()
	labels := pair(flat)
	key := seriesKey(labels)

	c.mu.RLock()
	known := c.families[name].find(kind, key)
	c.mu.RUnlock()
	if known != nil {
		return known
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.families[name]
	if f == nil {
		f = &family{kind: kind, series: make(map[string]*series)}
		c.families[name] = f
	}
	if f.kind != kind {
		return nil
	}
	if known := f.find(kind, key); known != nil {
		return known
	}
	if len(f.series) >= c.config.MaxSeries {
		for i := range labels {
			labels[i].Value = OtherSeries
		}
		key = seriesKey(labels)
		if other := f.find(kind, key); other != nil {
			return other
		}
	}
	s := c.newSeries(kind, labels)
	f.series[key] = s
	return s
}

func (f *family) find(kind Kind, key string) *series {
	if f == nil || f.kind != kind {
		return nil
	}
	return f.series[key]
}

func (c *Collector) newSeries(kind Kind, labels []Label) *series {
	s := &series{labels: labels}
	switch kind {
	case KindCounter:
		s.counter = &counter{clock: &c.clock}
	case KindHistogram:
		s.histogram = newHistogram(&c.clock)
	case KindGauge:
		s.gauge = &gauge{}
	}
	return s
}

// pair sorts labels by key. A key without a value has the empty one.
func pair(flat []string) []Label {
	labels := make([]Label, 0, (len(flat)+1)/2)
	for i := 0; i < len(flat); i += 2 {
		label := Label{Key: flat[i]}
		if i+1 < len(flat) {
			label.Value = flat[i+1]
		}
		labels = append(labels, label)
	}
	slices.SortStableFunc(labels, compareLabels)
	return labels
}

func compareLabels(a, b Label) int {
	return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Value, b.Value))
}

// seriesKey is different for different labels: lengths tell where each text ends.
func seriesKey(labels []Label) string {
	var key []byte
	for _, label := range labels {
		for _, text := range [2]string{label.Key, label.Value} {
			key = strconv.AppendInt(key, int64(len(text)), 10)
			key = append(append(key, ':'), text...)
		}
	}
	return string(key)
}

// of returns the series of one name, in no order. Their instruments are read
// without the lock.
func (c *Collector) of(name string) []*series {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.families[name].all()
}

func (f *family) all() []*series {
	if f == nil {
		return nil
	}
	return slices.Collect(maps.Values(f.series))
}
