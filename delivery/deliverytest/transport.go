package deliverytest

import "testing"

// TestTransport tests that a transport keeps the contract of
// delivery.Transport, each part of it in a subtest with queues of its own. The
// subtests run one after another, except that those which wait for delays run
// side by side, after the others. Any of them can be run alone by its name.
func TestTransport(t *testing.T, open func(tb testing.TB) Harness) {
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
			part.test(newRig(t, open(t)))
		})
	}
}
