// Package deliverytest checks implementations of delivery's contracts.
//
// TestTransport is the contract of delivery.Transport as tests. A transport's
// own package calls it:
//
//	func TestTransport(t *testing.T) {
//		deliverytest.TestTransport(t, func(tb testing.TB) deliverytest.Harness {
//			name := servers.Unique(tb)
//			return deliverytest.Harness{Open: func(tb testing.TB) delivery.Transport {
//				transport, err := mine.Open(tb.Context(), mine.Config{Name: name})
//				if err != nil {
//					tb.Fatal(err)
//				}
//				return transport
//			}}
//		})
//	}
//
// What the contract leaves open, a Harness states: how late a delayed message
// may be, how large a body, how many duplicates. Abilities such as
// delivery.Delayer are found by type assertion and tested where they are.
//
// BenchmarkTransport measures with the same harness.
//
// TestStore is the contract of delivery.Store, and TestSharedStore what several
// processes may do with one at once. They take what opens an empty store:
//
//	func TestStore(t *testing.T) {
//		deliverytest.TestStore(t, func(tb testing.TB) delivery.Store {
//			return mine.New(tb.TempDir())
//		})
//	}
//
// BenchmarkStore measures one.
//
// A Ledger settles what a test of one's own has lost and duplicated.
//
// The subpackage servers runs private servers for such tests. Nothing here
// needs more than the standard library's testing.
package deliverytest
