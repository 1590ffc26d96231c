package retry

import "time"

// Wait blocks for d and returns true then. It returns false if done is closed
// before; a nil done never is. The example shows how to try for as long as a context
// lasts.
func Wait(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return false
	case <-timer.C:
		return true
	}
}
