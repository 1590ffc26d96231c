// Package idempotencytest tests any idempotency.Store against the contract that its
// documentation states: every cell of the table of steps and states, expiry, lost
// leases, repeated commands, the fence, concurrent claimers, unusual keys, contexts,
// and long random sequences compared with a model.
//
// A store of your own is tested like this:
//
//	func TestStore(t *testing.T) {
//		idempotencytest.TestStore(t, func(t *testing.T) idempotencytest.Harness {
//			return idempotencytest.Harness{Store: newStore(t)}
//		})
//	}
//
// A store that is within the process and knows the time by package time alone can
// be tested by TestStoreInBubbles, which does not really wait.
package idempotencytest
