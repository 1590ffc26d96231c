package rabbitmq

import (
	"time"

	"github.com/esh3artech/barid/retry"
)

const (
	// shortestReconnectDelay is the wait after the first failure, before jitter.
	shortestReconnectDelay = 100 * time.Millisecond
	// steadyAfter is how long a connection has to live for the next one to be
	// made after the shortest delay again.
	steadyAfter = 5 * time.Second
)

// reconnectDelay is the wait between two tries. It doubles with each failure in
// a row, is jittered, and never exceeds the longest. It is not safe for
// concurrent use.
type reconnectDelay struct {
	policy   retry.Exponential
	failures int // in a row
}

func newReconnectDelay(longest time.Duration) *reconnectDelay {
	return &reconnectDelay{policy: retry.Exponential{
		Base:   min(shortestReconnectDelay, longest),
		Max:    longest,
		Jitter: retry.JitterEqual,
	}}
}

// next is how long to wait after one more failure. A permanent one is not worth
// an early try: it waits for the longest delay at once, and does not count.
func (d *reconnectDelay) next(permanent bool) time.Duration {
	if permanent {
		return d.policy.Max
	}
	delay := d.policy.Delay(d.failures)
	d.failures++
	return delay
}

// reset starts again from the shortest delay.
func (d *reconnectDelay) reset() { d.failures = 0 }

// endedAfter starts again from the shortest delay if what began then has lived
// long enough. What breaks soon after it was made is a failure like the others.
func (d *reconnectDelay) endedAfter(begin time.Time) {
	if time.Since(begin) >= steadyAfter {
		d.reset()
	}
}
