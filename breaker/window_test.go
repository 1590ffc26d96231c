package breaker

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func TestWindowKeepsTheLastOutcomes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 8).Draw(t, "size")
		w := newWindow(size)
		var all []bool
		for _, failed := range rapid.SliceOf(rapid.Bool()).Draw(t, "outcomes") {
			w.add(failed)
			all = append(all, failed)
			if rapid.IntRange(0, 15).Draw(t, "clear") == 0 {
				w.clear()
				all = nil
			}
			last := all[max(0, len(all)-size):]
			failures := 0
			for _, failed := range last {
				if failed {
					failures++
				}
			}
			assert.Equal(t, len(last), w.known)
			assert.Equal(t, failures, w.failures)
		}
	})
}

// A threshold written in decimal is reached by exactly that share.
func TestWindowReachesDecimalThresholds(t *testing.T) {
	for _, size := range []int{10, 20, 100, 1000} {
		for hundredths := 1; hundredths <= 100; hundredths++ {
			if hundredths*size%100 != 0 {
				continue
			}
			threshold := float64(hundredths) / 100
			failures := hundredths * size / 100
			w := newWindow(size)
			for i := range size {
				w.add(i < failures-1)
			}
			assert.False(t, w.reached(threshold), "%d of %d, threshold %v", failures-1, size, threshold)
			w.clear()
			for i := range size {
				w.add(i < failures)
			}
			assert.True(t, w.reached(threshold), "%d of %d, threshold %v", failures, size, threshold)
		}
	}
}
