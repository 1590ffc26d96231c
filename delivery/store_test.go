package delivery_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

func TestRecordsOnlyKeepsTheAbilitiesOfItsStore(t *testing.T) {
	store := memory.NewStore(memory.StoreConfig{})
	type plain struct{ delivery.Store }
	type watcher struct {
		delivery.Store
		delivery.StoreWatcher
	}
	type pinger struct {
		delivery.Store
		delivery.Pinger
	}
	for name, test := range map[string]struct {
		store          delivery.Store
		watches, pings bool
	}{
		"both":         {store, true, true},
		"StoreWatcher": {watcher{store, store}, true, false},
		"Pinger":       {pinger{store, failingPinger{}}, false, true},
		"neither":      {plain{store}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			only := delivery.RecordsOnly(test.store)
			_, watches := only.(delivery.StoreWatcher)
			assert.Equal(t, test.watches, watches)
			_, pings := only.(delivery.Pinger)
			assert.Equal(t, test.pings, pings)
			assert.Equal(t, only, delivery.RecordsOnly(only), "once is enough")
		})
	}

	only := delivery.RecordsOnly(pinger{store, failingPinger{}})
	require.ErrorIs(t, only.(delivery.Pinger).Ping(context.Background()), errDown)

	due := make(chan time.Time, 1)
	only = delivery.RecordsOnly(store)
	stop := only.(delivery.StoreWatcher).Watch(func(at time.Time) { due <- at })
	defer stop()
	at := time.Now().UTC().Truncate(time.Microsecond)
	require.Empty(t, only.Save(context.Background(), stored("a", delivery.StatusRetrying, at)))
	assert.Equal(t, at, <-due)

	assert.Nil(t, delivery.RecordsOnly(nil))
}

type failingPinger struct{}

func (failingPinger) Ping(context.Context) error { return errDown }

// The faults of the store's own config are found through RecordsOnly.
func TestRecordsOnlyOfAFaultyStore(t *testing.T) {
	only := delivery.RecordsOnly(memory.NewStore(memory.StoreConfig{MaxRecords: -1}))
	transport := memory.New(memory.Config{})
	_, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: only})
	require.ErrorContains(t, err, "PublisherConfig.Store")
	require.ErrorContains(t, err, "MaxRecords")
	_, err = delivery.NewConsumer(transport, fine, delivery.ConsumerConfig{Store: only})
	require.ErrorContains(t, err, "MaxRecords")
	require.NoError(t, transport.Close())
}

func TestNewRetryWorkerRejectsRecordsOnly(t *testing.T) {
	transport := memory.New(memory.Config{})
	_, err := delivery.NewRetryWorker(delivery.RecordsOnly(memory.NewStore(memory.StoreConfig{})), transport, delivery.RetryWorkerConfig{})
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorContains(t, err, "RecordsOnly")
	require.NoError(t, transport.Close())
}

// A transaction of the host's needs a retry worker, which finds what is committed
// after the process died.
func TestRecordsOnlyAllowsNoTransaction(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.recordsOnly()
		_, err := f.publisher.PublishIn(f.t.Context(), records, to("a"))
		require.ErrorIs(t, err, delivery.ErrUnsupported)
		_, errs := records.Get(f.t.Context(), "a")
		require.ErrorIs(t, errors.Join(errs...), delivery.ErrNotFound)
	})
}
