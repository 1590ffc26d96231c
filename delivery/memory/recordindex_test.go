package memory_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// Records come and go in any order, more of them than the suite has.
func TestStoreKeepsOrderAmongMany(t *testing.T) {
	const count = 4000
	ctx := t.Context()
	store := openStore(t)
	random := rand.New(rand.NewPCG(1, 2))
	changed := random.Perm(count)
	for _, i := range random.Perm(count) {
		record := recordNumbered(i)
		record.Status = delivery.StatusDelivered
		record.UpdatedAt = recordNumbered(changed[i]).CreatedAt
		require.Nil(t, store.Save(ctx, record))
	}
	for gone := 0; gone < count; gone += 500 {
		next := 0
		query := delivery.RecordQuery{Order: delivery.OldestFirst, Limit: delivery.MaxRecordLimit}
		for {
			page, err := store.List(ctx, query)
			require.NoError(t, err)
			for i := range page.Records {
				for changed[next] < gone {
					next++
				}
				require.Equal(t, recordNumbered(next).ID, page.Records[i].ID)
				next++
			}
			if query.Cursor = page.Next; query.Cursor == "" {
				break
			}
		}
		stats, err := store.Stats(ctx, "")
		require.NoError(t, err)
		require.Equal(t, count-gone, stats.Total)
		purged, err := store.Purge(ctx, "queue", recordNumbered(gone+500).CreatedAt, count)
		require.NoError(t, err)
		require.Equal(t, 500, purged)
		due, err := store.NextDue(ctx, "queue", delivery.StatusDelivered)
		require.NoError(t, err)
		require.Equal(t, gone+500 == count, due.IsZero())
	}
}

// A list that has to look far goes on where it let others in.
func TestStoreListsWhatIsFar(t *testing.T) {
	const count = 5000
	store := openStore(t)
	for i := range count {
		record := recordNumbered(i)
		if i%(count-1) == 0 {
			record.Recipient = "first or last"
		}
		require.Nil(t, store.Save(t.Context(), record))
	}
	for order, want := range map[delivery.RecordOrder][]string{
		delivery.OldestFirst: {recordNumbered(0).ID, recordNumbered(count - 1).ID},
		delivery.NewestFirst: {recordNumbered(count - 1).ID, recordNumbered(0).ID},
	} {
		page, err := store.List(t.Context(), delivery.RecordQuery{
			RecordFilter: delivery.RecordFilter{Recipient: "first or last"}, Order: order, Limit: 2,
		})
		require.NoError(t, err)
		require.Len(t, page.Records, 2)
		assert.Empty(t, page.Next)
		assert.Equal(t, want, []string{page.Records[0].ID, page.Records[1].ID})
	}
}

// A renewal of many lets others in, and misses none.
func TestStoreRenewsWhileOthersSettle(t *testing.T) {
	const count = 6000
	ctx := t.Context()
	store := openStore(t)
	records := make([]delivery.Record, count)
	for i := range records {
		records[i] = recordNumbered(i)
		records[i].Status, records[i].ClaimedBy = delivery.StatusQueued, "session"
	}
	require.Nil(t, store.Save(ctx, records...))
	until := recordNumbered(1_000_000).CreatedAt
	var settling sync.WaitGroup
	settling.Go(func() {
		for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(count)[:count/2] {
			update := delivery.Update{ID: records[i].ID, Status: delivery.StatusDelivered, At: until}
			_, errs := store.Update(ctx, update)
			assert.Nil(t, errs)
		}
	})
	for range 10 {
		require.NoError(t, store.Renew(ctx, "queue", "session", until))
	}
	settling.Wait()
	due, err := store.NextDue(ctx, "queue", delivery.StatusQueued)
	require.NoError(t, err)
	assert.Equal(t, until, due)
	require.NoError(t, store.Renew(ctx, "queue", "session", until.Add(time.Hour)))
	renewed, err := store.Claim(ctx, delivery.Claim{
		Queue: "queue", Status: delivery.StatusQueued, Token: "other", Now: until.Add(time.Hour), Lease: time.Minute, Limit: count,
	})
	require.NoError(t, err)
	assert.Len(t, renewed, count/2)
}
