package sqlstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// fillGrown saves records as they are after a while: nearly all are delivered, and
// every thousandth, of the older ones, waits in one of the other statuses, or is of
// a rare type.
func fillGrown(tb testing.TB, store *sqlstore.Store, n int) {
	statuses := delivery.Statuses()
	records := make([]delivery.Record, 0, 1000)
	for i := range n {
		at := time.UnixMicro(0).Add(time.Duration(i+1) * time.Second)
		record := delivery.Record{
			Message: delivery.Message{
				ID: delivery.NewID(), Recipient: fmt.Sprint("r", i%1000), Type: fmt.Sprint("often ", i%3),
				Priority: delivery.Priorities()[i%4], CreatedAt: at,
			},
			Progress: delivery.Progress{Queue: "queue", Status: delivery.StatusDelivered, UpdatedAt: at},
		}
		if i%1000 == 0 && i < n/2 {
			record.Status = statuses[i/1000%len(statuses)]
			if i%7000 == 0 {
				record.Type = "rare"
			}
		}
		records = append(records, record)
		if len(records) == cap(records) || i == n-1 {
			require.Empty(tb, store.Save(tb.Context(), records...))
			records = records[:0]
		}
	}
}

// grownFilters are those of which few of many records fit.
func grownFilters() map[string]delivery.RecordFilter {
	return map[string]delivery.RecordFilter{
		"sent":         {Statuses: []delivery.Status{delivery.StatusSent}},
		"queued":       {Queue: "queue", Statuses: []delivery.Status{delivery.StatusQueued}},
		"waiting":      {Statuses: []delivery.Status{delivery.StatusPending, delivery.StatusQueued, delivery.StatusRetrying, delivery.StatusSent}},
		"type":         {Type: "rare"},
		"type waiting": {Type: "rare", Statuses: []delivery.Status{delivery.StatusPending, delivery.StatusQueued}},
	}
}

// A list reads what is on its page from an index, and sorts no more than a page of
// each status.
func TestListsUseTheIndex(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		fillGrown(t, store, 20_000)
		require.NoError(t, store.Analyze(t.Context()))
		for name, filter := range grownFilters() {
			for _, order := range []delivery.RecordOrder{delivery.NewestFirst, delivery.OldestFirst} {
				plan, err := store.ExplainList(t.Context(), delivery.RecordQuery{RecordFilter: filter, Order: order, Limit: 10})
				require.NoError(t, err)
				index, parts := "progress_listed", len(filter.Statuses)
				if parts == 0 {
					index, parts = "messages_type", 1
				}
				require.Equal(t, parts, strings.Count(plan, store.Prefix()+index), "%s: %s", name, plan)
				for _, not := range []string{"Seq Scan", "SCAN m", "SCAN p ", "Hash Join", "Merge Join"} {
					require.NotContains(t, plan, not, name)
				}
			}
		}
	})
}

// BenchmarkList reads a page of what few of many records fit.
func BenchmarkList(b *testing.B) {
	onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
		fillGrown(b, store, 200_000)
		require.NoError(b, store.Analyze(b.Context()))
		for name, filter := range grownFilters() {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					_, err := store.List(b.Context(), delivery.RecordQuery{RecordFilter: filter})
					require.NoError(b, err)
				}
			})
		}
	})
}
