package memory_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

// BenchmarkStoreMillion measures a store with a million records, all of them
// due at some time.
func BenchmarkStoreMillion(b *testing.B) {
	store := memory.NewStore(memory.StoreConfig{})
	records := make([]delivery.Record, 1000)
	for i := range 1_000_000 {
		record := recordNumbered(0)
		record.ID = strconv.Itoa(i)
		record.CreatedAt = record.CreatedAt.Add(time.Duration(i) * time.Millisecond)
		record.DueAt = record.CreatedAt
		records[i%len(records)] = record
		if i%len(records) == len(records)-1 {
			if errs := store.Save(b.Context(), records...); errs != nil {
				b.Fatal(errs[0])
			}
		}
	}
	now := recordNumbered(0).CreatedAt
	b.Run("Claim1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(time.Hour)
			claimed, err := store.Claim(b.Context(), delivery.Claim{
				Queue: "queue", Status: delivery.StatusPending, Token: "w", Now: now, Lease: time.Minute, Limit: 1000,
			})
			if err != nil || len(claimed) != 1000 {
				b.Fatal(len(claimed), err)
			}
		}
	})
	b.Run("NextDue", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.NextDue(b.Context(), "queue", delivery.StatusPending, delivery.StatusRetrying); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Stats", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if stats, err := store.Stats(b.Context(), ""); err != nil || stats.Total != 1_000_000 {
				b.Fatal(stats.Total, err)
			}
		}
	})
	b.Run("List100", func(b *testing.B) {
		b.ReportAllocs()
		query := delivery.RecordQuery{}
		for b.Loop() {
			page, err := store.List(b.Context(), query)
			if err != nil {
				b.Fatal(err)
			}
			query.Cursor = page.Next
		}
	})
	b.Run("ListOfNothing", func(b *testing.B) {
		query := delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Recipient: "nobody"}}
		for b.Loop() {
			if page, err := store.List(b.Context(), query); err != nil || len(page.Records) > 0 {
				b.Fatal(err)
			}
		}
	})
}
