package deliverytest

import (
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// StoreWithin is TestStore with another patience.
func StoreWithin(t *testing.T, patience time.Duration, open func(tb testing.TB) delivery.Store) {
	testStore(t, patience, open)
}
