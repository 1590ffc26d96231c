package retry

import "time"

// Policy says how often something is tried again, and after which waits. In both
// methods n is the number of the retry, 0 for the first one.
//
// The answers depend on n alone, and on chance where a policy has jitter. So an
// attempt that was counted in one process can be scheduled by another. Both
// methods are safe for concurrent use, return at once and accept any n.
type Policy interface {
	// Delay is the wait before retry n, whether or not that is allowed. It is never
	// negative.
	Delay(n int) time.Duration
	// CanRetry says whether retry n is allowed.
	CanRetry(n int) bool
}

// None is the Policy that never retries.
type None struct{}

var _ Policy = None{}

// Delay is always 0.
func (None) Delay(int) time.Duration { return 0 }

// CanRetry is always false.
func (None) CanRetry(int) bool { return false }
