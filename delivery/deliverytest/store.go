package deliverytest

import (
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// TestStore tests that a store keeps the contract of delivery.Store, each part
// of it in a subtest that can be run alone by its name. open returns an empty
// store that nobody else uses, and sees by Cleanup to its end; it is called
// about once for each part.
//
// The suite takes no time from the clock, and its own times lie in the year
// 2026 or, where it matters that the store has no clock, far from any now.
// delivery.StoreWatcher and delivery.Pinger are tested where the store has
// them.
func TestStore(t *testing.T, open func(tb testing.TB) delivery.Store) {
	testStore(t, storePatience, open)
}

func testStore(t *testing.T, patience time.Duration, open func(tb testing.TB) delivery.Store) {
	one := func(t *testing.T) *storeRig { return newStoreRig(t, patience, open(t)) }
	for _, part := range []storePart{
		{"Empty", emptyStore},
		{"KeepsEveryField", recordFields},
		{"KeepsOddText", oddText},
		{"KeepsBodies", recordBodies},
		{"KeepsTimes", recordTimes},
		{"IsolatesCallers", isolatesCallers},
		{"SavesOnce", savesOnce},
		{"TellsSavesApart", tellsSavesApart},
		{"GetsInOrder", getsInOrder},
		{"ManyAtOnce", manyRecordsAtOnce},

		{"Transitions", transitions},
		{"Life", wholeLife},
		{"History", boundedHistory},
		{"LateNews", lateNews},
		{"TellsUpdatesApart", tellsUpdatesApart},
		{"RandomSteps", randomSteps},

		{"ClaimsWhatIsDue", claimsWhatIsDue},
		{"ClaimsInOrder", claimsInOrder},
		{"ClaimsChangeLittle", claimsChangeLittle},
		{"LeasesEnd", leasesEnd},
		{"InvalidClaims", invalidClaims},
		{"Renew", renews},
		{"NextDue", nextDue},
		{"TimeFromArguments", timeFromArguments},

		{"ListOrder", listOrder},
		{"ListEqualTimes", listEqualTimes},
		{"ListFilters", listFilters},
		{"ListLimits", listLimits},
		{"ListCursors", listCursors},
		{"ListWhileRecordsChange", listWhileRecordsChange},

		{"Stats", storeStats},
		{"Purge", purges},

		{"Watch", watches},
		{"WatchStops", watchStops},
		{"WatchHoldsNothing", watchHoldsNothing},
		{"EndedContexts", endedContexts},
		{"PingStore", pingStore},
	} {
		part.run(t, one)
	}
	for _, part := range atOnce() {
		part.run(t, one)
	}
	t.Run("LeavesNoGoroutines", func(t *testing.T) { storeLeavesNoGoroutines(t, patience, open) })
}

// TestSharedStore tests what several processes do with one store at once. open
// returns two stores on the same data, which is empty at first, as two
// processes would have them. TestStore is for either alone.
func TestSharedStore(t *testing.T, open func(tb testing.TB) (one, other delivery.Store)) {
	both := func(t *testing.T) *storeRig {
		one, other := open(t)
		return newStoreRig(t, storePatience, one, other)
	}
	storePart{"SeesTheOthers", seesTheOthers}.run(t, both)
	for _, part := range atOnce() {
		part.run(t, both)
	}
}

// atOnce are the parts in which many goroutines, of all stores, take part.
func atOnce() []storePart {
	return []storePart{
		{"UpdatesAtOnce", updatesAtOnce},
		{"SavesAtOnce", savesAtOnce},
		{"ClaimsAtOnce", claimsAtOnce},
		{"BatchesCrosswise", batchesCrosswise},
		{"EverythingAtOnce", everythingAtOnce},
		{"CancelledCallers", cancelledCallers},
	}
}

type storePart struct {
	name string
	test func(*storeRig)
}

func (p storePart) run(t *testing.T, open func(t *testing.T) *storeRig) {
	t.Run(p.name, func(t *testing.T) { p.test(open(t)) })
}
