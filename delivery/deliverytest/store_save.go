package deliverytest

import (
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// emptyStore calls everything on a store without records.
func emptyStore(t *storeSubtest) {
	ctx := t.Context()
	t.save()
	t.update()
	t.get()
	t.checkMissing("nobody", "", "nobody")
	progress, errs := t.store.Update(ctx, delivery.Update{ID: "nobody", Status: delivery.StatusQueued, At: storeStart})
	t.checkErrors("Update", errs, delivery.ErrNotFound)
	if len(progress) != 1 || progressDifferences(&delivery.Progress{}, &progress[0]) != nil {
		t.Errorf("Update of nobody: progress is %+v, want one that is zero", progress)
	}
	t.checkList("of nothing", delivery.RecordQuery{})
	t.checkNextDue(time.Time{})
	statuses := delivery.Statuses()
	t.checkNextDue(time.Time{}, statuses[:]...)
	t.renew("nobody", storeStart)
	t.checkPurge(after(1000), 100, 0)
	for _, status := range statuses {
		t.checkClaim(status, "nobody", after(1000), 10)
	}
	t.checkStats(delivery.RecordStats{})
}

// savesOnce saves an ID again: the first record stays.
func savesOnce(t *storeSubtest) {
	first := fullRecord(0)
	t.save(first)
	again := plainRecord(0)
	again.Body = []byte("another")
	t.checkErrors("Save", t.store.Save(t.Context(), again), delivery.ErrExists)
	t.checkRecords(first)
	update := delivery.Update{ID: first.ID, Status: delivery.StatusQueued, Generation: 3, RetryCount: 12, At: after(5)}
	if err := first.Apply(update); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	t.update(update)
	t.checkErrors("Save", t.store.Save(t.Context(), fullRecord(0)), delivery.ErrExists)
	t.checkRecords(first)
	t.checkList("of all", delivery.RecordQuery{}, first.ID)
}

// tellsSavesApart saves records of which some are invalid or there already:
// each has its own error.
func tellsSavesApart(t *storeSubtest) {
	t.save(plainRecord(1))
	nameless, statusless, odd := plainRecord(5), plainRecord(6), plainRecord(7)
	nameless.ID, statusless.Status, odd.Status = "", "", "PENDING"
	twice := plainRecord(2)
	twice.Body = []byte("the second of the call")
	errs := t.store.Save(t.Context(), plainRecord(0), nameless, plainRecord(1), plainRecord(2), statusless, twice, odd, plainRecord(3))
	t.checkErrors("Save", errs, nil, delivery.ErrInvalid, delivery.ErrExists, nil, delivery.ErrInvalid, delivery.ErrExists, delivery.ErrInvalid, nil)
	t.checkRecords(plainRecords(4)...)
	t.checkMissing("", "record-0005", "record-0006", "record-0007")
	t.checkList("of all", delivery.RecordQuery{Order: delivery.OldestFirst}, idsOf(plainRecords(4))...)
	t.checkStats(delivery.RecordStats{Total: 4, Counts: countsOf(plainRecords(4)), OldestPending: after(0)})
	t.checkErrors("Save", t.store.Save(t.Context(), nameless), delivery.ErrInvalid)
}

// getsInOrder gets records in the order of the IDs asked for, some of them
// missing.
func getsInOrder(t *storeSubtest) {
	records := plainRecords(3)
	t.save(records...)
	got, errs := t.store.Get(t.Context(), "record-0002", "nobody", "record-0000", "record-0002", "RECORD-0000", "")
	t.checkErrors("Get", errs, nil, delivery.ErrNotFound, nil, nil, delivery.ErrNotFound, delivery.ErrNotFound)
	want := []delivery.Record{records[2], {}, records[0], records[2], {}, {}}
	if len(got) != len(want) {
		t.Fatalf("Get of %d IDs: %d records", len(want), len(got))
	}
	for i := range want {
		if err := recordDifferences(&want[i], &got[i]); err != nil {
			t.Errorf("Get: record %d: %v", i, err)
		}
	}
}

// manyRecordsAtOnce passes more records in a call than fit into one statement
// or pipeline.
func manyRecordsAtOnce(t *storeSubtest) {
	const many = 3000
	records := plainRecords(many)
	for i := range records {
		records[i].DueAt = after(i)
	}
	t.save(records...)
	ids := idsOf(records)
	t.get(ids...)
	updates := make([]delivery.Update, many)
	for i := range updates {
		updates[i] = delivery.Update{ID: ids[many-1-i], Status: delivery.StatusRetrying, RetryCount: 1, At: after(many), DueAt: after(many + i)}
	}
	for i, progress := range t.update(updates...) {
		if !progress.DueAt.Equal(after(many + i)) {
			t.Fatalf("Update of many: DueAt %d is %s, want %s", i, progress.DueAt, after(many+i))
		}
	}
	claimed := idsOf(t.claim(delivery.StatusRetrying, "w", after(3*many), delivery.MaxClaim))
	slices.Reverse(claimed)
	if !slices.Equal(claimed, ids) {
		t.Errorf("Claim of %d, due in order: %d came, or not in order", many, len(claimed))
	}
	for i := range updates {
		updates[i].Status, updates[i].DueAt = delivery.StatusDelivered, time.Time{}
	}
	t.update(updates...)
	t.checkPurge(after(many+1), many-1, many-1)
	t.checkPurge(after(many+1), many, 1)
	t.checkList("of all", delivery.RecordQuery{})
}
