package sqlstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

// What is woken is found by an index: that of the recipient's records, or of those that
// wait, whichever are fewer.
func TestWakesUseTheIndex(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		fillGrown(t, store, 20_000)
		require.NoError(t, store.Analyze(t.Context()))
		for name, filter := range map[string]delivery.RecordFilter{"recipient": {Recipient: "r0"}, "type": {Type: "rare"}, "all": {}} {
			filter.Queue, filter.Statuses = "queue", []delivery.Status{delivery.StatusRetrying}
			plan, err := store.ExplainList(t.Context(), delivery.RecordQuery{RecordFilter: filter, Order: delivery.OldestFirst, Limit: 500})
			require.NoError(t, err)
			assert.Regexp(t, store.Prefix()+"(messages_recipient|messages_type|progress_listed)", plan, name)
			for _, not := range []string{"Seq Scan", "SCAN m", "SCAN p ", "messages_created"} {
				assert.NotContains(t, plan, not, name)
			}
		}
	})
}

// A recipient's messages are woken, or all of a type, over several batches, in the order
// of their age.
func TestWake(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		const n = 1200
		begin := time.Now()
		records := make([]delivery.Record, n)
		for i := range records {
			records[i] = delivery.Record{
				Message: delivery.Message{
					ID: fmt.Sprintf("m-%04d", i), Recipient: fmt.Sprint("r", i%100), Type: fmt.Sprint("type ", i%2),
					CreatedAt: begin.Add(time.Duration(i) * time.Millisecond),
				},
				Progress: delivery.Progress{
					Queue: "queue", Status: delivery.StatusRetrying, RetryCount: 2, UpdatedAt: begin,
					DueAt: begin.Add(time.Duration(n-i) * time.Hour),
				},
			}
			records[i].NextRetryAt = records[i].DueAt
		}
		require.Empty(t, store.Save(t.Context(), records...))
		transport := memory.New(memory.Config{Name: "queue"})
		t.Cleanup(func() { assert.NoError(t, transport.Close()) })
		worker, err := delivery.NewRetryWorker(store, transport, delivery.RetryWorkerConfig{
			DeadLetters: dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{}),
		})
		require.NoError(t, err)
		wake := func(filter delivery.WakeFilter, want ...string) {
			t.Helper()
			woken, err := worker.Wake(t.Context(), filter)
			require.NoError(t, err)
			require.Equal(t, len(want), woken)
			claimed, err := store.Claim(t.Context(), delivery.Claim{
				Queue: "queue", Status: delivery.StatusRetrying, Token: "worker", Now: time.Now().Add(time.Second), Lease: time.Hour, Limit: n,
			})
			require.NoError(t, err)
			ids := make([]string, len(claimed))
			for i := range claimed {
				ids[i] = claimed[i].ID
				require.Equal(t, 2, claimed[i].RetryCount)
			}
			require.Equal(t, want, ids)
		}
		var recipients, types, rest []string
		for i := range records {
			switch {
			case i%100 == 7:
				recipients = append(recipients, records[i].ID)
			case i%2 == 1:
				types = append(types, records[i].ID)
			default:
				rest = append(rest, records[i].ID)
			}
		}
		wake(delivery.WakeFilter{Recipient: "r7"}, recipients...)
		wake(delivery.WakeFilter{Type: "type 1"}, types...)
		wake(delivery.WakeFilter{All: true}, rest...)
	})
}
