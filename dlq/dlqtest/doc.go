// Package dlqtest is the contract of dlq.Store as a test suite. A store of your
// own is tested with:
//
//	func TestStore(t *testing.T) {
//		dlqtest.TestStore(t, func(t *testing.T) dlq.Store {
//			return newStore(t) // empty, and closed by t.Cleanup
//		})
//	}
//
// The suite needs nothing but package testing, takes no server of its own and
// does not depend on the clock: the times that it gives to the store lie in
// the year 2026.
package dlqtest
