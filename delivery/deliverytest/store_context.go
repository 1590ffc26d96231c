package deliverytest

import (
	"context"
	"errors"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// endedContexts calls everything with a context that has ended.
func endedContexts(t *storeSubtest) {
	record := dueRecord(0, delivery.StatusPending, after(0))
	record.ClaimedBy = "p"
	done := plainRecord(1)
	done.Status = delivery.StatusDelivered
	t.save(record, done)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithTimeout(t.Context(), -time.Second)
	defer stop()
	for ctx, want := range map[context.Context]error{ended: context.Canceled, late: context.DeadlineExceeded} {
		two := []error{want, want}
		t.checkErrors("Save", t.store.Save(ctx, plainRecord(2), plainRecord(3)), two...)
		update := delivery.Update{ID: record.ID, Status: delivery.StatusQueued, At: after(1)}
		_, errs := t.store.Update(ctx, update, update)
		t.checkErrors("Update", errs, two...)
		_, errs = t.store.Get(ctx, record.ID, done.ID)
		t.checkErrors("Get", errs, two...)
		_, listed := t.store.List(ctx, delivery.RecordQuery{})
		_, claimed := t.store.Claim(ctx, claimOf(delivery.StatusPending, "w", after(1), 1))
		renewed := t.store.Renew(ctx, storeQueue, "p", after(1))
		_, next := t.store.NextDue(ctx, storeQueue, delivery.StatusPending)
		_, stats := t.store.Stats(ctx, "")
		_, purged := t.store.Purge(ctx, storeQueue, after(1000), 10)
		for call, err := range map[string]error{
			"List": listed, "Claim": claimed, "Renew": renewed, "NextDue": next, "Stats": stats, "Purge": purged,
		} {
			if !errors.Is(err, want) {
				t.Errorf("%s after the context's end: %v, want %v", call, err, want)
			}
		}
	}
	t.checkRecords(record, done)
	t.checkMissing("record-0002", "record-0003")
}
