package sqlstore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
)

// Keys is an idempotency.Store in the database of a Store. It shares the
// Store's transactions: when many workers write, the completion of a key and
// the update of its message's record cost one commit together.
//
// Times come from the clock of the process. Processes that share a database
// should have clocks that agree within a fraction of a lease. Transactions that
// write keys delete expired ones, about a thousand at a time.
type Keys struct{ store *Store }

var (
	_ idempotency.Store = (*Keys)(nil)
	_ delivery.Pinger   = (*Keys)(nil)
)

// Keys returns the idempotency.Store.
func (s *Store) Keys() *Keys { return &Keys{store: s} }

// Err is nil, or says that Keys is empty, for an idempotency.Guard to ask. It matches
// ErrConfig.
func (k *Keys) Err() error {
	if k == nil {
		return fmt.Errorf("%w: Keys is nil, want one of Store.Keys", ErrConfig)
	}
	return k.store.usable()
}

// indexed is key as it stands in the index: as it is, or its SHA-256 when it is
// too long for an index.
func indexed(key string) string {
	if len(key) <= maxIndexedBytes {
		return "k" + key
	}
	sum := sha256.Sum256([]byte(key))
	return "h" + string(sum[:])
}

// Ping implements delivery.Pinger.
func (k *Keys) Ping(ctx context.Context) error {
	if err := k.Err(); err != nil {
		return err
	}
	return k.store.Ping(ctx)
}

// Claim implements idempotency.Store.
func (k *Keys) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	call := &keyCall{action: claimKey, key: key, token: token, attempt: attempt, duration: lease}
	err := k.execute(ctx, call)
	return call.answer, err
}

// Renew implements idempotency.Store.
func (k *Keys) Renew(ctx context.Context, key, token string, lease time.Duration) error {
	return k.execute(ctx, &keyCall{action: renewKey, key: key, token: token, duration: lease})
}

// Complete implements idempotency.Store.
func (k *Keys) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	call := &keyCall{action: completeKey, key: key, token: token, duration: window}
	err := k.execute(ctx, call)
	return call.completion, err
}

// Schedule implements idempotency.Store.
func (k *Keys) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	return k.execute(ctx, &keyCall{action: scheduleKey, key: key, token: token, attempt: attempt, duration: ttl})
}

// Release implements idempotency.Store.
func (k *Keys) Release(ctx context.Context, key, token string) error {
	return k.execute(ctx, &keyCall{action: releaseKey, key: key, token: token, duration: 1})
}

// execute has the call executed. The caller's copy has the results only if the
// store answered.
func (k *Keys) execute(ctx context.Context, call *keyCall) error {
	if err := k.Err(); err != nil {
		return &idempotency.UnavailableError{Op: call.action.String(), Err: err}
	}
	if err := idempotency.Validate(call.key, call.token, call.duration); err != nil {
		return err
	}
	private := *call
	private.key = indexed(call.key)
	if err := k.store.writer.execute(ctx, k.store.keys.operation, size{rows: 1}, &private); err != nil {
		return idempotency.Unavailable(ctx, call.action.String(), err)
	}
	*call = private
	return call.refusal
}
