package metrics

import "time"

// frames is how many steps a window has. More of them would make it slide more
// smoothly, at the price of one histogram's memory each.
const frames = 6

// clock numbers the frames since a Collector was made. It reads the monotonic
// clock only.
type clock struct {
	start  time.Time
	length time.Duration // of one frame
}

func (c *clock) frame() int64 { return int64(time.Since(c.start) / c.length) }

func (c *clock) frameAt(t time.Time) int64 { return int64(t.Sub(c.start) / c.length) }

// covered is the time from the start of the oldest frame that is kept, or from
// the start of everything, until now.
func (c *clock) covered() time.Duration {
	elapsed := time.Since(c.start)
	if oldest := int64(elapsed/c.length) - frames + 1; oldest > 0 {
		return elapsed - time.Duration(oldest)*c.length
	}
	return elapsed
}
