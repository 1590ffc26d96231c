package deliverytest

import (
	"testing"
	"testing/synctest"
)

// TestTransport tests that a transport keeps the contract of
// delivery.Transport. Each check is a subtest with queues of its own, and can
// be run alone by its name. The subtests run one after another, except that
// those that wait for delays run in parallel, after the others.
func TestTransport(t *testing.T, open func(tb testing.TB) Harness) {
	testTransport(t, open, func(t *testing.T, check func(*testing.T)) { check(t) })
}

// TestTransportInBubbles is TestTransport with each check, open included, in a
// bubble of testing/synctest. Waiting takes no time there, and delays are exact
// on the slowest machine. The transport must not reach out of the process. Run
// TestTransport as well: in a bubble a context with a deadline does not end
// while a call is at work.
func TestTransportInBubbles(t *testing.T, open func(tb testing.TB) Harness) {
	testTransport(t, open, synctest.Test)
}

func testTransport(t *testing.T, open func(tb testing.TB) Harness, run func(*testing.T, func(*testing.T))) {
	for _, check := range []struct {
		name string
		test func(*transportSubtest)
		// waits is true when the check spends seconds on waiting.
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

		{"Stale", stale, false},
		{"Pause", pause, false},
		{"Depth", depth, false},
		{"Ping", ping, false},
		{"Name", name, false},
		{"DeadLetters", deadLetters, false},
	} {
		t.Run(check.name, func(t *testing.T) {
			if check.waits {
				t.Parallel()
			}
			run(t, func(t *testing.T) { check.test(newTransportSubtest(t, open(t))) })
		})
	}
}
