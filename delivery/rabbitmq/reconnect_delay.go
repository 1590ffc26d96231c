package rabbitmq

import (
	"time"

	"github.com/cenkalti/backoff/v4"
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
	exponential *backoff.ExponentialBackOff
	longest     time.Duration
}

func newReconnectDelay(longest time.Duration) *reconnectDelay {
	const jitter = 0.5
	return &reconnectDelay{longest: longest, exponential: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(shortestReconnectDelay, longest)),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(jitter),
		// The limit counts before the jitter, which adds up to one half.
		backoff.WithMaxInterval(time.Duration(float64(longest)/(1+jitter))),
		backoff.WithMaxElapsedTime(0),
	)}
}

// next is how long to wait after one more failure. A permanent one is not worth
// an early try: it waits for the longest delay at once, and does not count.
func (d *reconnectDelay) next(permanent bool) time.Duration {
	if permanent {
		return d.longest
	}
	return d.exponential.NextBackOff()
}

// reset starts again from the shortest delay.
func (d *reconnectDelay) reset() { d.exponential.Reset() }

// endedAfter starts again from the shortest delay if what began then has lived
// long enough. What breaks soon after it was made is a failure like the others.
func (d *reconnectDelay) endedAfter(begin time.Time) {
	if time.Since(begin) >= steadyAfter {
		d.reset()
	}
}
