package metrics

import (
	"math"
	"sync/atomic"
)

type gauge struct {
	bits atomic.Uint64
}

// Set implements Gauge. NaN is ignored and infinities become the largest
// number, because neither has a form in JSON.
func (g *gauge) Set(v float64) {
	if math.IsNaN(v) {
		return
	}
	g.bits.Store(math.Float64bits(min(max(v, -math.MaxFloat64), math.MaxFloat64)))
}

func (g *gauge) value() float64 { return math.Float64frombits(g.bits.Load()) }
