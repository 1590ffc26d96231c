package metrics

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Values are recorded in millionths: microseconds where the unit is seconds.
// The range, up to about eleven days, and two significant digits make a
// histogram of 36 KB with an error of at most 1 %.
const (
	resolution    = 1e6
	highest       = 1e6 // seconds
	precision     = 2   // significant decimal digits
	maxStripes    = 8
	cacheLineSize = 64
)

// histogram spreads what is observed over stripes, so that observers seldom wait for
// each other's lock, and moves the stripes' content into past when a frame ends.
type histogram struct {
	clock   *clock
	frame   atomic.Int64
	stripes []stripe // a power of two of them

	turning sync.Mutex
	past    [frames]*hdrhistogram.Histogram // frames that ended, at their number modulo frames; nil is empty
	pastSum [frames]float64
	count   int64   // of all frames that ended
	sum     float64 // of all frames that ended
}

// stripe is a share of the current frame.
type stripe struct {
	mu     sync.Mutex
	values *hdrhistogram.Histogram // nil until the first value
	sum    float64
	_      [cacheLineSize]byte
}

func newValues() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, highest*resolution, precision)
}

func newHistogram(clock *clock) *histogram {
	stripes := 1
	for stripes < min(runtime.GOMAXPROCS(0), maxStripes) {
		stripes *= 2
	}
	return &histogram{clock: clock, stripes: make([]stripe, stripes)}
}

// Observe implements Histogram. NaN is ignored. A value below 0, as of a clock that
// was set back, counts as 0, and one above the range as its upper end.
func (h *histogram) Observe(v float64) { h.observe(v, h.clock.frame()) }

// ObserveAt implements TimedHistogram.
func (h *histogram) ObserveAt(v float64, at time.Time) { h.observe(v, h.clock.frameAt(at)) }

func (h *histogram) observe(v float64, frame int64) {
	if math.IsNaN(v) {
		return
	}
	v = min(max(v, 0), highest)
	h.turn(frame)
	stripe := &h.stripes[int(rand.Uint32())&(len(h.stripes)-1)]
	stripe.mu.Lock()
	if stripe.values == nil {
		stripe.values = newValues()
	}
	// It can't fail: v is within the range.
	_ = stripe.values.RecordValue(int64(math.Round(v * resolution)))
	stripe.sum += v
	stripe.mu.Unlock()
}

// turn makes frame the current one. An Observe that runs at the same time may count
// in either frame.
func (h *histogram) turn(frame int64) {
	if frame <= h.frame.Load() {
		return
	}
	h.turning.Lock()
	defer h.turning.Unlock()
	last := h.frame.Load()
	if frame <= last {
		return
	}
	// First, so that observers go on while the stripes are emptied.
	h.frame.Store(frame)

	ended := last % frames
	for i := range h.stripes {
		h.empty(&h.stripes[i], ended)
	}
	for began := max(last, frame-frames) + 1; began <= frame; began++ {
		if values := h.past[began%frames]; values != nil {
			values.Reset()
		}
		h.pastSum[began%frames] = 0
	}
}

// empty moves a stripe's content to the frame that ended.
func (h *histogram) empty(stripe *stripe, ended int64) {
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	if stripe.values == nil || stripe.values.TotalCount() == 0 {
		return
	}
	if h.past[ended] == nil {
		h.past[ended] = newValues()
	}
	h.past[ended].Merge(stripe.values)
	h.pastSum[ended] += stripe.sum
	h.count += stripe.values.TotalCount()
	h.sum += stripe.sum
	stripe.values.Reset()
	stripe.sum = 0
}

// totals are since the start.
func (h *histogram) totals() (count int64, sum float64) {
	h.turning.Lock()
	defer h.turning.Unlock()
	count, sum = h.count, h.sum
	for i := range h.stripes {
		stripe := &h.stripes[i]
		stripe.mu.Lock()
		if stripe.values != nil {
			count += stripe.values.TotalCount()
			sum += stripe.sum
		}
		stripe.mu.Unlock()
	}
	return count, sum
}

// recent is the distribution within the window that ends with frame.
func (h *histogram) recent(frame int64) Distribution {
	h.turn(frame)
	all := newValues()
	sum := 0.0
	h.turning.Lock()
	for i, values := range h.past {
		if values != nil {
			all.Merge(values)
			sum += h.pastSum[i]
		}
	}
	for i := range h.stripes {
		stripe := &h.stripes[i]
		stripe.mu.Lock()
		if stripe.values != nil {
			all.Merge(stripe.values)
			sum += stripe.sum
		}
		stripe.mu.Unlock()
	}
	h.turning.Unlock()

	count := all.TotalCount()
	if count == 0 {
		return Distribution{}
	}
	at := all.ValueAtPercentilesSlice([]float64{50, 95, 99})
	return Distribution{
		Count: count,
		Mean:  sum / float64(count),
		P50:   float64(at[0]) / resolution,
		P95:   float64(at[1]) / resolution,
		P99:   float64(at[2]) / resolution,
	}
}
