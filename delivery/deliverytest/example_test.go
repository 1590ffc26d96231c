package deliverytest_test

import (
	"testing"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/memory"
)

// The tests of a transport's package have a function like this one.
func ExampleTestTransport() {
	_ = func(t *testing.T) { // func TestTransport(t *testing.T)
		deliverytest.TestTransport(t, func(testing.TB) deliverytest.Harness {
			// A harness has queues that no other one has.
			first := memory.New(memory.Config{})
			return deliverytest.Harness{
				// Each call returns another transport on these queues.
				Open: func(testing.TB) delivery.Transport { return first.Another() },
			}
		})
	}
}

// The tests of a store's package have a function like this one.
func ExampleTestStore() {
	_ = func(t *testing.T) { // func TestStore(t *testing.T)
		deliverytest.TestStore(t, func(testing.TB) delivery.Store {
			return memory.NewStore(memory.StoreConfig{})
		})
	}
}
