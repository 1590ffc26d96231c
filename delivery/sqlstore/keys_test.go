package sqlstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/idempotencytest"
)

func TestKeysOfNoStore(t *testing.T) {
	for _, keys := range []*sqlstore.Keys{nil, {}, new(sqlstore.Store).Keys()} {
		_, err := keys.Claim(t.Context(), "key", "me", 0, time.Minute)
		require.ErrorIs(t, err, sqlstore.ErrConfig)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.ErrorIs(t, keys.Release(t.Context(), "key", "me"), sqlstore.ErrConfig)
		require.ErrorIs(t, keys.Ping(t.Context()), sqlstore.ErrConfig)
		require.ErrorIs(t, idempotency.NewGuard(keys, idempotency.GuardConfig{}).Err(), sqlstore.ErrConfig)
	}
}

func TestKeys(t *testing.T) {
	servers.Parallel(t)
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		idempotencytest.TestStore(t, func(t *testing.T) idempotencytest.Harness {
			servers.Parallel(t)
			return idempotencytest.Harness{Store: store.Keys(), Short: 150 * time.Millisecond}
		})
	})
}
