// Package dlqtest tests implementations of dlq.Store and dlq.JobStore against
// these contracts. A store of your own is tested with:
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
// The suites need nothing but package testing, start no server, and do not
// depend on the clock: the times that they give to the store are in the year
// 2026.
package dlqtest
