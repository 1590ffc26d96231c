package sqlstore_test

import (
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/idempotency/idempotencytest"
)

func TestKeys(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		idempotencytest.TestStore(t, func(*testing.T) idempotencytest.Harness {
			return idempotencytest.Harness{Store: store.Keys(), Short: 150 * time.Millisecond}
		})
	})
}
