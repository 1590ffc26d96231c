package deliverytest

import (
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// TestStore tests that a store keeps the contract of delivery.Store. Each check
// is a subtest, and can be run alone by its name. open returns an empty store
// that nobody else uses, and closes it by tb.Cleanup. It is called about once
// for each check. It may make the check's test parallel to others, which helps
// when the store is far away, except in LeavesNoGoroutines.
//
// The checks take no time from the clock. The times that they pass lie in the
// year 2026, and where the check is that the store does not read the clock, in
// another century. delivery.StoreWatcher and delivery.Pinger are tested when
// the store implements them.
func TestStore(t *testing.T, open func(tb testing.TB) delivery.Store) {
	testStore(t, storePatience, open)
}

func testStore(t *testing.T, patience time.Duration, open func(tb testing.TB) delivery.Store) {
	one := func(t *testing.T) *storeSubtest { return newStoreSubtest(t, patience, open(t)) }
	for _, check := range []storeCheck{
		{"Empty", emptyStore},
		{"KeepsEveryField", keepsEveryRecordField},
		{"KeepsOddText", keepsOddText},
		{"KeepsBodies", keepsRecordBodies},
		{"KeepsTimes", keepsTimes},
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

		{"ClaimsWhatIsDue", claimsWhatIsDue},
		{"ClaimsInOrder", claimsInOrder},
		{"ClaimsByPriority", claimsByPriority},
		{"ClaimsChangeLittle", claimsChangeLittle},
		{"LeasesEnd", leasesEnd},
		{"InvalidClaims", invalidClaims},
		{"ClaimsByQueue", claimsByQueue},
		{"TellsByQueue", tellsByQueue},
		{"MovesBetweenQueues", movesBetweenQueues},
		{"Renew", renews},
		{"RenewalsEnd", renewalsEnd},
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
		{"PurgesByQueue", purgesByQueue},

		{"Watch", watches},
		{"WatchStops", watchStops},
		{"WatchHoldsNothing", watchHoldsNothing},
		{"EndedContexts", endedContexts},
		{"PingStore", pingStore},
	} {
		check.run(t, one)
	}
	t.Run("RandomSteps", func(t *testing.T) {
		for _, walk := range randomWalks() {
			walk.run(t, one)
		}
	})
	for _, check := range concurrentStoreChecks() {
		check.run(t, one)
	}
	t.Run("LeavesNoGoroutines", func(t *testing.T) { storeLeavesNoGoroutines(t, patience, open) })
}

// TestSharedStore tests what several processes do with one store at once. open
// returns two stores on the same data, as two processes would have them; the
// data is empty at first. It does not replace TestStore, which tests one store
// by itself.
func TestSharedStore(t *testing.T, open func(tb testing.TB) (one, other delivery.Store)) {
	both := func(t *testing.T) *storeSubtest {
		one, other := open(t)
		return newStoreSubtest(t, storePatience, one, other)
	}
	storeCheck{"SeesTheOthers", seesTheOthers}.run(t, both)
	for _, check := range concurrentStoreChecks() {
		check.run(t, both)
	}
}

// concurrentStoreChecks are the checks in which several goroutines use all of
// the stores at once.
func concurrentStoreChecks() []storeCheck {
	return []storeCheck{
		{"UpdatesAtOnce", updatesAtOnce},
		{"SavesAtOnce", savesAtOnce},
		{"ClaimsAtOnce", claimsAtOnce},
		{"BatchesCrosswise", batchesCrosswise},
		{"EverythingAtOnce", everythingAtOnce},
		{"CancelledCallers", cancelledCallers},
	}
}

type storeCheck struct {
	name string
	test func(*storeSubtest)
}

func (c storeCheck) run(t *testing.T, open func(t *testing.T) *storeSubtest) {
	t.Run(c.name, func(t *testing.T) { c.test(open(t)) })
}
