package sqlstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// A purge reads what it deletes from the index, the oldest first, and nothing of
// other queues.
func TestPurgesUseTheIndex(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		fillEnded(t, store, 2000)
		plan, err := store.ExplainPurge(t.Context(), "queue")
		require.NoError(t, err)
		require.Contains(t, plan, store.Prefix()+"progress_ended")
		for _, not := range []string{"Seq Scan", "Sort", "TEMP B-TREE"} {
			require.NotContains(t, plan, not)
		}
	})
}

// fillEnded saves records that were delivered second by second.
func fillEnded(tb testing.TB, store *sqlstore.Store, n int) {
	records := make([]delivery.Record, 0, 1000)
	for i := range n {
		at := time.UnixMicro(0).Add(time.Duration(i) * time.Second)
		records = append(records, delivery.Record{
			Message:  delivery.Message{ID: delivery.NewID(), Recipient: fmt.Sprint("r", i%1000), Body: make([]byte, 1000), CreatedAt: at},
			Progress: delivery.Progress{Queue: "queue", Status: delivery.StatusDelivered, UpdatedAt: at},
		})
		if len(records) == cap(records) || i == n-1 {
			require.Empty(tb, store.Save(tb.Context(), records...))
			records = records[:0]
		}
	}
}

// BenchmarkPurge deletes records 500 at a time, as a retry worker does.
func BenchmarkPurge(b *testing.B) {
	onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
		const each = 500
		fillEnded(b, store, 100_000)
		b.ResetTimer()
		for n := range b.N {
			if n%200 == 199 {
				b.StopTimer()
				fillEnded(b, store, 100_000)
				b.StartTimer()
			}
			purged, err := store.Purge(b.Context(), "queue", time.Now(), each)
			require.NoError(b, err)
			require.Equal(b, each, purged)
		}
		b.ReportMetric(float64(b.N)*each/b.Elapsed().Seconds(), "records/s")
	})
}
