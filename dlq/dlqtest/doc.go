// Package dlqtest is the contracts of dlq.Store and dlq.JobStore as test suites.
// A store of your own is tested with:
//
//	func TestStore(t *testing.T) {
//		dlqtest.TestStore(t, func(t *testing.T) dlq.Store {
//			return newStore(t) // empty, and closed by t.Cleanup
//		})
//	}
//
//	func TestJobStore(t *testing.T) { // if it is one
//		dlqtest.TestJobStore(t, func(t *testing.T) dlq.JobStore { return newStore(t) })
//	}
//
// The suite needs nothing but package testing, takes no server of its own and
// does not depend on the clock: the times that it gives to the store lie in
// the year 2026.
package dlqtest
