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
	"github.com/esh3artech/barid/idempotency"
)

// ableKeys is a store of keys that can be pinged and checked, and may be unfit.
type ableKeys struct {
	idempotency.Store
	pings, checks int
	fault         error
}

func (k *ableKeys) Ping(context.Context) error  { k.pings++; return nil }
func (k *ableKeys) Check(context.Context) error { k.checks++; return nil }
func (k *ableKeys) Err() error                  { return k.fault }

// tracedKeys is a host's wrapper, which is down for its first claim.
type tracedKeys struct {
	idempotency.Store
	claims int
}

func (k *tracedKeys) Unwrap() idempotency.Store { return k.Store }

func (k *tracedKeys) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	if k.claims++; k.claims == 1 {
		return idempotency.Answer{}, &idempotency.UnavailableError{Op: "claim", Err: errDown}
	}
	return k.Store.Claim(ctx, key, token, attempt, lease)
}

// A wrapper of an idempotency store hides none of its abilities.
func TestWrappedKeysKeepTheirAbilities(t *testing.T) {
	bubble(t, func(f *fixture) {
		able := &ableKeys{Store: f.store}
		config := f.config()
		config.Idempotency = &tracedKeys{Store: able}
		_, stop := f.consume(fine, config)
		f.publish(to("a"))
		wait(time.Minute)
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.Equal(t, 1, able.checks, "before it starts")
		assert.Positive(t, able.pings, "while it is down")
		require.NoError(t, stop())

		able.fault = errors.New("unfit")
		_, err := delivery.NewConsumer(f.transport, fine, config)
		require.ErrorIs(t, err, able.fault)
		require.ErrorIs(t, idempotency.NewGuard(config.Idempotency, idempotency.GuardConfig{}).Err(), able.fault)
		_, found := idempotency.AbilityOf[delivery.Pinger](&tracedKeys{})
		assert.False(t, found, "it wraps nothing")
	})
}

// tracedRecords is a host's wrapper of a message store.
type tracedRecords struct{ delivery.Store }

func (r tracedRecords) Unwrap() delivery.Store { return r.Store }

// A wrapper of a message store hides neither its abilities nor that nobody runs a
// RetryWorker on it.
func TestWrappedRecordsKeepTheirAbilities(t *testing.T) {
	store := memory.NewStore(memory.StoreConfig{})
	_, watches := delivery.RecordsOnly(tracedRecords{store}).(delivery.StoreWatcher)
	assert.True(t, watches)
	_, err := delivery.NewRetryWorker(tracedRecords{delivery.RecordsOnly(store)}, memory.New(memory.Config{}), delivery.RetryWorkerConfig{})
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorContains(t, err, "store is RecordsOnly")
}
