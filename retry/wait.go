package retry

import "time"

// Wait blocks until d is over, and returns true then. It returns false when done
// closes before that; a nil done never does.
//
// With it an operation that has no count of tries, only somebody who waits for
// it, goes on until it works:
//
//	policy := retry.Exponential{Base: 100 * time.Millisecond, Max: 30 * time.Second, Jitter: retry.JitterEqual}
//	for n := 0; connect() != nil; n++ {
//		if !retry.Wait(ctx.Done(), policy.Delay(n)) {
//			return ctx.Err()
//		}
//	}
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
