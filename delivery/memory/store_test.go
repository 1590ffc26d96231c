package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/memory"
)

func recordNumbered(i int) delivery.Record {
	at := time.Date(2026, 3, 1, 0, 0, i, 0, time.UTC)
	return delivery.Record{
		Message:  delivery.Message{ID: fmt.Sprintf("m%06d", i), Recipient: "r", CreatedAt: at},
		Progress: delivery.Progress{Queue: "queue", Status: delivery.StatusPending, DueAt: at, UpdatedAt: at},
	}
}

func TestStoreConfig(t *testing.T) {
	require.NoError(t, memory.NewStore(memory.StoreConfig{}).Err())
	for name, store := range map[string]*memory.Store{
		"nil": nil, "zero": {}, "negative": memory.NewStore(memory.StoreConfig{MaxRecords: -1}),
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, store.Err(), memory.ErrConfig)
			ctx := t.Context()
			errs := store.Save(ctx, delivery.Record{})
			_, updated := store.Update(ctx, delivery.Update{})
			_, got := store.Get(ctx, "")
			_, listed := store.List(ctx, delivery.RecordQuery{})
			_, claimed := store.Claim(ctx, delivery.Claim{})
			renewed := store.Renew(ctx, "queue", "", time.Time{})
			_, next := store.NextDue(ctx, "queue")
			_, stats := store.Stats(ctx, "")
			_, purged := store.Purge(ctx, "queue", time.Time{}, 1)
			errs = append(append(append(errs, updated...), got...), listed, claimed, renewed, next, stats, purged, store.Ping(ctx))
			require.Len(t, errs, 10)
			for _, err := range errs {
				require.ErrorIs(t, err, memory.ErrConfig)
			}
			store.Watch(func(time.Time) {})()
		})
	}
}

func TestStoreIsFull(t *testing.T) {
	ctx := context.Background()
	store := memory.NewStore(memory.StoreConfig{MaxRecords: 2})
	errs := store.Save(ctx, recordNumbered(0), recordNumbered(0), recordNumbered(1), recordNumbered(2), recordNumbered(1))
	require.Len(t, errs, 5)
	require.NoError(t, errors.Join(errs[0], errs[2]))
	require.ErrorIs(t, errs[1], delivery.ErrExists)
	require.ErrorIs(t, errs[3], memory.ErrFull)
	require.ErrorIs(t, errs[3], delivery.ErrStoreDown)
	require.ErrorIs(t, errs[4], delivery.ErrExists, "what is there needs no room")

	done := delivery.Update{ID: "m000000", Status: delivery.StatusDelivered, At: recordNumbered(9).CreatedAt}
	_, errs = store.Update(ctx, done)
	require.Nil(t, errs)
	purged, err := store.Purge(ctx, "queue", done.At.Add(1), 10)
	require.NoError(t, err)
	assert.Equal(t, 1, purged)
	require.Nil(t, store.Save(ctx, recordNumbered(2)))
}

func TestStoreClaims(t *testing.T) {
	ctx := context.Background()
	store := memory.NewStore(memory.StoreConfig{})
	for i := range 5000 {
		require.Nil(t, store.Save(ctx, recordNumbered(i*7919%5000)))
	}
	now := recordNumbered(2999).CreatedAt
	for from := 0; from < 3000; from += 1000 {
		claimed, err := store.Claim(ctx, delivery.Claim{
			Queue: "queue", Status: delivery.StatusPending, Token: "w", Now: now, Lease: time.Hour, Limit: 1000,
		})
		require.NoError(t, err)
		require.Len(t, claimed, 1000)
		for i := range claimed {
			require.Equal(t, recordNumbered(from+i).ID, claimed[i].ID)
		}
	}
	due, err := store.NextDue(ctx, "queue", delivery.StatusPending)
	require.NoError(t, err)
	assert.Equal(t, recordNumbered(3000).CreatedAt, due)
	require.NoError(t, store.Renew(ctx, "queue", "w", now.Add(2*time.Hour)))
	renewed, errs := store.Get(ctx, "m000000", "m002999")
	require.Nil(t, errs)
	assert.Equal(t, now.Add(2*time.Hour), renewed[0].DueAt)
	assert.Equal(t, now.Add(2*time.Hour), renewed[1].DueAt)

	var ids []string
	query := delivery.RecordQuery{Limit: 700}
	for {
		page, err := store.List(ctx, query)
		require.NoError(t, err)
		for i := range page.Records {
			ids = append(ids, page.Records[i].ID)
		}
		if query.Cursor = page.Next; query.Cursor == "" {
			break
		}
	}
	require.Len(t, ids, 5000)
	for i := range ids {
		require.Equal(t, recordNumbered(4999-i).ID, ids[i])
	}
}

func openStore(testing.TB) delivery.Store { return memory.NewStore(memory.StoreConfig{}) }

func TestStoreContract(t *testing.T) { deliverytest.TestStore(t, openStore) }

func TestStoreContractShared(t *testing.T) {
	deliverytest.TestSharedStore(t, func(tb testing.TB) (one, other delivery.Store) {
		store := openStore(tb)
		return store, store
	})
}

func BenchmarkStoreContract(b *testing.B) { deliverytest.BenchmarkStore(b, openStore) }
