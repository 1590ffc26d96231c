package sqlstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// fillQueued saves records that wait in a process, claimed by token.
func fillQueued(tb testing.TB, store *sqlstore.Store, token string, n int) {
	records := make([]delivery.Record, 0, 1000)
	for i := range n {
		at := time.UnixMicro(int64(i + 1))
		records = append(records, delivery.Record{
			Message:  delivery.Message{ID: delivery.NewID(), Recipient: fmt.Sprint("r", i%1000), Priority: delivery.Priorities()[i%4], CreatedAt: at},
			Progress: delivery.Progress{Queue: "queue", Status: delivery.StatusQueued, ClaimedBy: token, DueAt: at, UpdatedAt: at},
		})
		if len(records) == cap(records) || i == n-1 {
			require.Empty(tb, store.Save(tb.Context(), records...))
			records = records[:0]
		}
	}
}

// A renewal of many records reads only those that it has to write, and so does
// whatever looks for leases that have ended.
func TestLeasesUseTheIndex(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		fillQueued(t, store, "session", 5000)
		require.NoError(t, store.Renew(t.Context(), "queue", "session", time.UnixMicro(1e9)))
		require.NoError(t, store.Analyze(t.Context()))
		plans, err := store.ExplainLeases(t.Context(), "queue", "session")
		require.NoError(t, err)
		for _, plan := range plans {
			require.NotContains(t, plan, "Seq Scan")
			require.NotContains(t, plan, "SCAN p")
			require.Contains(t, plan, store.Prefix()+"progress_claimed")
			// The condition on the due time is a part of what the index is asked for.
			require.Regexp(t, `Index Cond: .*claimed_by.*due_at|progress_claimed \(claimed_by=\? AND queue=\? AND status=\? AND due_at`, plan)
		}
	})
}

// What a process left that had much in hand is claimed by others to the last
// record, the highest priority first.
func TestManyClaimsEnd(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		const many = 5500
		fillQueued(t, store, "dead", many)
		fillQueued(t, store, "alive", 100)
		require.NoError(t, store.Renew(t.Context(), "queue", "dead", time.UnixMicro(1e9)))
		require.NoError(t, store.Renew(t.Context(), "queue", "alive", time.UnixMicro(1e10)))
		claim := delivery.Claim{Queue: "queue", Status: delivery.StatusQueued, Token: "w", Now: time.UnixMicro(1e9), Lease: time.Hour, Limit: many / 4}
		for _, priority := range delivery.Priorities() {
			claimed, err := store.Claim(t.Context(), claim)
			require.NoError(t, err)
			require.Len(t, claimed, many/4)
			for i := range claimed {
				require.Equal(t, priority, claimed[i].Priority)
			}
		}
		rest, err := store.Claim(t.Context(), claim)
		require.NoError(t, err)
		assert.Empty(t, rest)
		leases, err := store.Leases(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 1, leases, "that of what has been claimed is gone")
	})
}

// BenchmarkRenew renews the claims on all that waits in a process.
func BenchmarkRenew(b *testing.B) {
	for _, waiting := range []int{1000, 50_000} {
		b.Run(fmt.Sprint(waiting), func(b *testing.B) {
			onEachStore(b, func(b *testing.B, store *sqlstore.Store) {
				fillQueued(b, store, "session", waiting)
				until := time.Now()
				require.NoError(b, store.Renew(b.Context(), "queue", "session", until)) // writes each
				for b.Loop() {
					until = until.Add(time.Second)
					require.NoError(b, store.Renew(b.Context(), "queue", "session", until))
				}
			})
		})
	}
}
