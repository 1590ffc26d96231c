package deliverytest

import (
	"testing"
	"testing/synctest"
)

// TestTransport tests that a transport keeps the contract of
// delivery.Transport, each part of it in a subtest with queues of its own. The
// subtests run one after another, except that those which wait for delays run
// side by side, after the others. Any of them can be run alone by its name.
func TestTransport(t *testing.T, open func(tb testing.TB) Harness) {
	testTransport(t, open, func(t *testing.T, part func(*testing.T)) { part(t) })
}

// TestTransportInBubbles is TestTransport with each part, open included, in a
// bubble of testing/synctest. Waiting takes no time there, and no machine is too
// slow for a delay that has to be exact. The transport must not reach out of
// the process. Run TestTransport, too: in a bubble a context with a deadline
// does not end in the middle of a call that is at work.
func TestTransportInBubbles(t *testing.T, open func(tb testing.TB) Harness) {
	testTransport(t, open, synctest.Test)
}

func testTransport(t *testing.T, open func(tb testing.TB) Harness, run func(*testing.T, func(*testing.T))) {
	for _, part := range []struct {
		name string
		test func(*rig)
		// waits: it takes seconds in which little happens.
		waits bool
	}{
		{"KeepsEveryField", keepsEveryField, false},
		{"KeepsBodies", keepsBodies, false},
		{"KeepsBatches", keepsBatches, false},
		{"IsolatesTheSender", isolatesTheSender, false},
		{"IsolatesReceipts", isolatesReceipts, false},
		{"TellsErrorsPerEnvelope", tellsErrorsPerEnvelope, false},
		{"Malformed", malformed, false},

		{"KeepsOrder", keepsOrder, false},
		{"HigherPriorityFirst", higherPriorityFirst, false},
		{"PrioritiesDoNotHoldEachOther", prioritiesDoNotHoldEachOther, false},
		{"PrefetchIsExact", prefetchIsExact, false},
		{"SubscriptionsCompete", subscriptionsCompete, false},

		{"SettlesOnce", settlesOnce, false},
		{"SettlesOnceAmongMany", settlesOnceAmongMany, false},
		{"NackRedelivers", nackRedelivers, false},
		{"CloseOfSubscriptionRedelivers", closeOfSubscriptionRedelivers, false},

		{"ManyPublishersAndConsumers", manyPublishersAndConsumers, false},
		{"DeathOfAConsumer", deathOfAConsumer, false},
		{"LostConnections", lostConnections, false},
		{"ReopenAgainAndAgain", reopenAgainAndAgain, false},
		{"ConcurrentClose", concurrentClose, false},

		{"Delays", delays, true},
		{"ManyDelays", manyDelays, true},
		{"DelaysOutliveTheSender", delaysOutliveTheSender, true},

		{"Deadlines", deadlines, false},
		{"CancelledReceivesLoseNothing", cancelledReceivesLoseNothing, false},
		{"AfterClose", afterClose, false},
		{"LeavesNoGoroutines", leavesNoGoroutines, false},

		{"Pause", pause, false},
		{"Depth", depth, false},
		{"Ping", ping, false},
		{"Name", name, false},
		{"DeadLetters", deadLetters, false},
	} {
		t.Run(part.name, func(t *testing.T) {
			if part.waits {
				t.Parallel()
			}
			run(t, func(t *testing.T) { part.test(newRig(t, open(t))) })
		})
	}
}
