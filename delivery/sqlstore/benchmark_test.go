package sqlstore_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// callers is how many goroutines use the store at once in benchmarks.
const callers = 64

// BenchmarkCycle measures what a message costs that is saved before it is sent,
// and updated when it is delivered.
func BenchmarkCycle(b *testing.B) {
	onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
		b.ReportAllocs()
		body := make([]byte, 1024)
		var n atomic.Int64
		b.ResetTimer()
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for n.Add(1) <= int64(b.N) {
					cycle(b, store, body)
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cycles/s")
	})
}

func cycle(tb testing.TB, store *sqlstore.Store, body []byte) {
	ctx := context.Background()
	now := time.Now()
	record := delivery.Record{
		Message: delivery.Message{
			ID: delivery.NewID(), Recipient: "someone@example.org", Type: "order.created", Body: body,
			CreatedAt: now, Headers: map[string]string{"trace": "4bf92f3577b34da6a3ce929d0e0e4736"},
		},
		Progress: delivery.Progress{Queue: "queue", Status: delivery.StatusPending, DueAt: now.Add(time.Minute), ClaimedBy: "me", UpdatedAt: now},
	}
	for _, err := range store.Save(ctx, record) {
		tb.Error(err)
	}
	_, errs := store.Update(ctx, delivery.Update{ID: record.ID, Status: delivery.StatusDelivered, At: time.Now()})
	for _, err := range errs {
		tb.Error(err)
	}
}

// BenchmarkClaim claims 1000 records out of many, a tenth of which is due.
func BenchmarkClaim(b *testing.B) {
	for _, stored := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(stored), func(b *testing.B) {
			onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
				b.ReportAllocs()
				start := time.UnixMicro(0).Add(time.Hour)
				fill(b, store, stored, start)
				now := start.Add(time.Duration(stored/10) * time.Second)
				for n := 0; b.Loop(); n++ {
					claim := delivery.Claim{Queue: "queue", Status: delivery.StatusRetrying, Token: "me", Now: now, Lease: time.Nanosecond, Limit: 1000}
					got, err := store.Claim(b.Context(), claim)
					require.NoError(b, err)
					require.Len(b, got, 1000)
				}
			})
		})
	}
}

// fill saves records that become due second by second.
func fill(tb testing.TB, store *sqlstore.Store, n int, start time.Time) {
	records := make([]delivery.Record, 0, 1000)
	for i := range n {
		at := start.Add(time.Duration(i) * time.Second)
		records = append(records, delivery.Record{
			Message:  delivery.Message{ID: delivery.NewID(), Recipient: fmt.Sprint("r", i%1000), Body: make([]byte, 100), CreatedAt: at},
			Progress: delivery.Progress{Queue: "queue", Status: delivery.StatusRetrying, DueAt: at, NextRetryAt: at, UpdatedAt: at},
		})
		if len(records) == cap(records) || i == n-1 {
			require.Empty(tb, store.Save(tb.Context(), records...))
			records = records[:0]
		}
	}
}

func BenchmarkSQLiteStore(b *testing.B)   { deliverytest.BenchmarkStore(b, openSQLite) }
func BenchmarkPostgresStore(b *testing.B) { deliverytest.BenchmarkStore(b, openPostgres) }

// BenchmarkGet reads one record, and a hundred in a call.
func BenchmarkGet(b *testing.B) {
	onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
		ids := make([]string, 100)
		for i := range ids {
			ids[i] = fmt.Sprint(i)
			require.Empty(b, store.Save(b.Context(), pending(ids[i])))
		}
		for _, n := range []int{1, 100} {
			b.Run(fmt.Sprint(n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, errs := store.Get(b.Context(), ids[:n]...)
					require.Empty(b, errs)
				}
			})
		}
	})
}
