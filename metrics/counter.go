package metrics

import (
	"sync"
	"sync/atomic"
	"time"
)

// counter is a total, and what the total was when each of the last frames
// began. Only the first Add of a frame takes the lock.
type counter struct {
	clock *clock
	total atomic.Int64
	frame atomic.Int64

	turning sync.Mutex
	began   [frames]int64 // the total at the start of a frame, at the frame's number modulo frames
}

// Add implements Counter.
func (c *counter) Add(n int64) { c.add(n, c.clock.frame()) }

// AddAt implements TimedCounter.
func (c *counter) AddAt(n int64, at time.Time) { c.add(n, c.clock.frameAt(at)) }

func (c *counter) add(n, frame int64) {
	if n > 0 {
		c.turn(frame)
		c.total.Add(n)
	}
}

// turn makes frame the current one. An Add that runs at the same time may count in
// either frame.
func (c *counter) turn(frame int64) {
	if frame <= c.frame.Load() {
		return
	}
	c.turning.Lock()
	defer c.turning.Unlock()
	last := c.frame.Load()
	if frame <= last {
		return
	}
	total := c.total.Load()
	for began := max(last, frame-frames) + 1; began <= frame; began++ {
		c.began[began%frames] = total
	}
	c.frame.Store(frame)
}

// recent is what was added within the window that ends with frame.
func (c *counter) recent(frame int64) int64 {
	c.turn(frame)
	c.turning.Lock()
	defer c.turning.Unlock()
	return c.total.Load() - c.began[(c.frame.Load()+1)%frames]
}
