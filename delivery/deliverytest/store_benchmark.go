package deliverytest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// BenchmarkStore measures a store with bodies of 1 KiB. open is the same as
// TestStore's. One op is one record: it is saved, or updated, or taken through
// a cycle, in which it is saved as pending and updated to queued and delivered.
// The callers are one or 64 at once. In Claim1000Of10000 an op is a claim of
// 1,000 records out of 10,000 that are due, and in ListPageOf100 a page of 100.
func BenchmarkStore(b *testing.B, open func(tb testing.TB) delivery.Store) {
	for _, row := range []struct {
		name          string
		callers, size int
		run           func(b *testing.B, store delivery.Store, records []delivery.Record)
		saved         bool
	}{
		{"Save", 1, 1, benchmarkSave, false},
		{"SaveBatch100", 1, 100, benchmarkSave, false},
		{"Save64Callers", 64, 1, benchmarkSave, false},
		{"Update", 1, 1, benchmarkUpdate, true},
		{"UpdateBatch100", 1, 100, benchmarkUpdate, true},
		{"Update64Callers", 64, 1, benchmarkUpdate, true},
		{"Cycle", 1, 1, benchmarkCycle, false},
		{"Cycle64Callers", 64, 1, benchmarkCycle, false},
	} {
		b.Run(row.name, func(b *testing.B) {
			store := open(b)
			records := benchmarkRecords(b.N)
			if row.saved {
				benchmarkFill(b, store, records)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var all sync.WaitGroup
			for caller := range row.callers {
				mine := records[len(records)*caller/row.callers : len(records)*(caller+1)/row.callers]
				all.Go(func() {
					for len(mine) > 0 {
						n := min(row.size, len(mine))
						row.run(b, store, mine[:n])
						mine = mine[n:]
					}
				})
			}
			all.Wait()
		})
	}
	b.Run("Claim1000Of10000", func(b *testing.B) { benchmarkClaim(b, open(b)) })
	b.Run("ListPageOf100", func(b *testing.B) { benchmarkList(b, open(b)) })
}

func benchmarkRecords(n int) []delivery.Record {
	body := make([]byte, 1024)
	records := make([]delivery.Record, n)
	for i := range records {
		at := storeStart.Add(time.Duration(i) * time.Microsecond)
		records[i] = delivery.Record{
			Message: delivery.Message{
				ID: delivery.NewID(), Recipient: fmt.Sprint("recipient ", i%1000), Type: "benchmark", Body: body, CreatedAt: at,
			},
			Progress: delivery.Progress{Queue: storeQueue, Status: delivery.StatusPending, DueAt: at.Add(30 * time.Second), ClaimedBy: "publisher", UpdatedAt: at},
		}
	}
	return records
}

func benchmarkFill(b *testing.B, store delivery.Store, records []delivery.Record) {
	for len(records) > 0 {
		n := min(1000, len(records))
		benchmarkSave(b, store, records[:n])
		records = records[n:]
	}
}

func benchmarkSave(b *testing.B, store delivery.Store, records []delivery.Record) {
	if errs := store.Save(b.Context(), records...); errs != nil {
		b.Errorf("Save: %v", errors.Join(errs...))
	}
}

func benchmarkUpdate(b *testing.B, store delivery.Store, records []delivery.Record) {
	benchmarkUpdateTo(b, store, delivery.StatusQueued, records)
}

func benchmarkUpdateTo(b *testing.B, store delivery.Store, status delivery.Status, records []delivery.Record) {
	updates := make([]delivery.Update, len(records))
	for i := range updates {
		updates[i] = delivery.Update{ID: records[i].ID, Status: status, At: records[i].CreatedAt}
	}
	if _, errs := store.Update(b.Context(), updates...); errs != nil {
		b.Errorf("Update: %v", errors.Join(errs...))
	}
}

func benchmarkCycle(b *testing.B, store delivery.Store, records []delivery.Record) {
	benchmarkSave(b, store, records)
	benchmarkUpdateTo(b, store, delivery.StatusQueued, records)
	benchmarkUpdateTo(b, store, delivery.StatusDelivered, records)
}

func benchmarkClaim(b *testing.B, store delivery.Store) {
	benchmarkFill(b, store, benchmarkRecords(10_000))
	now := storeStart
	b.ReportAllocs()
	for b.Loop() {
		// All are due each time, and those come first that were claimed first.
		now = now.Add(time.Hour)
		claimed, err := store.Claim(b.Context(), claimOf(delivery.StatusPending, "w", now, 1000))
		if err != nil || len(claimed) != 1000 {
			b.Fatalf("Claim: %d records, %v", len(claimed), err)
		}
	}
}

func benchmarkList(b *testing.B, store delivery.Store) {
	benchmarkFill(b, store, benchmarkRecords(10_000))
	b.ReportAllocs()
	query := delivery.RecordQuery{Order: delivery.OldestFirst}
	for b.Loop() {
		page, err := store.List(b.Context(), query)
		if err != nil || len(page.Records) != 100 {
			b.Fatalf("List: %d records, %v", len(page.Records), err)
		}
		query.Cursor = page.Next
	}
}
