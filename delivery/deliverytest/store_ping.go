package deliverytest

import (
	"context"
	"errors"

	"github.com/esh3artech/barid/delivery"
)

// pingStore calls Ping, if the store is a delivery.Pinger.
func pingStore(t *storeSubtest) {
	pinger, ok := t.store.(delivery.Pinger)
	if !ok {
		return
	}
	if err := pinger.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pinger.Ping(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Ping after the context's end: %v, want context.Canceled", err)
	}
}
