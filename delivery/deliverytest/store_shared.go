package deliverytest

import (
	"time"

	"github.com/esh3artech/barid/delivery"
)

// seesTheOthers changes records through one store: the other sees each change
// at once.
func seesTheOthers(t *storeSubtest) {
	one, other := *t, *t
	other.store = t.stores[1]
	record := fullRecord(0)
	one.save(record)
	other.checkRecords(record)
	t.checkErrors("Save", other.store.Save(t.Context(), plainRecord(0)), delivery.ErrExists)
	record.ClaimedBy, record.DueAt = "w", record.DueAt.Add(storeLease)
	other.checkClaim(delivery.StatusRetrying, "w", record.DueAt.Add(-storeLease), 1, record.ID)
	one.checkClaim(delivery.StatusRetrying, "v", record.DueAt.Add(-time.Microsecond), 1)
	one.checkRecords(record)
	update := delivery.Update{ID: record.ID, Status: delivery.StatusQueued, Generation: 3, RetryCount: 12, At: after(9), OnlyIfClaimedBy: "w"}
	if err := record.Apply(update); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	one.update(update)
	other.checkRecords(record)
	other.checkNextDue(time.Time{}, delivery.StatusRetrying)
	other.checkStats(statsOf([]delivery.Record{record}))
}
