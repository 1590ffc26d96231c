package deliverytest

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// stacks is what all goroutines do now.
func stacks() string {
	for size := 1 << 16; ; size *= 2 {
		buffer := make([]byte, size)
		if n := runtime.Stack(buffer, true); n < size {
			return string(buffer[:n])
		}
	}
}

// goroutines maps the number of each goroutine, except the caller's, to its
// stack.
func goroutines() map[string]string {
	all := map[string]string{}
	for i, stack := range strings.Split(stacks(), "\n\n") {
		head, _, found := strings.Cut(stack, " [")
		if found && i > 0 {
			all[head] = stack
		}
	}
	return all
}

// newSince is an error with the stacks of the goroutines that were not there
// before, or nil.
func newSince(before map[string]string) error {
	var found bytes.Buffer
	for number, stack := range goroutines() {
		if _, known := before[number]; !known {
			fmt.Fprintf(&found, "\n%s\n", stack)
		}
	}
	if found.Len() == 0 {
		return nil
	}
	return fmt.Errorf("deliverytest: goroutines were left:\n%s", found.String())
}

// leavesNoGoroutines opens, uses and ends transports a few times.
func leavesNoGoroutines(t *transportSubtest) {
	use := func(end func(delivery.Transport)) {
		transport := t.harness.Open(t.T)
		subscription, err := transport.Subscribe(t.boundedContext(), delivery.SubscribeConfig{Prefetch: 5})
		if err != nil {
			t.Fatalf("Subscribe: %v", err)
		}
		t.send(transport, t.envelopes(10, delivery.Normal)...)
		if delayer, ok := transport.(delivery.Delayer); ok {
			t.checkAccepted(delayer.SendAfter(t.boundedContext(), time.Hour, t.envelopes(2, delivery.Normal)))
		}
		t.ack(t.receive(subscription, 5)...)
		end(transport)
		t.close(subscription)
		t.close(transport)
	}
	before := goroutines()
	for range 3 {
		use(func(delivery.Transport) {})
		use(func(transport delivery.Transport) { t.kill(transport) })
	}
	t.eventually("all goroutines have ended", func() error { return newSince(before) })
}

// storeLeavesNoGoroutines uses a store three times. The first time does not
// count, because goroutines that all stores share may begin then.
func storeLeavesNoGoroutines(t *testing.T, patience time.Duration, open func(tb testing.TB) delivery.Store) {
	use := func(t *testing.T) {
		subtest := newStoreSubtest(t, patience, open(t))
		stop := func() {}
		if watcher, ok := subtest.store.(delivery.StoreWatcher); ok {
			stop = watcher.Watch(func(time.Time) {})
		}
		subtest.save(dueRecord(0, delivery.StatusPending, after(0)))
		subtest.checkClaim(delivery.StatusPending, "w", after(1), 1, "record-0000")
		subtest.update(delivery.Update{ID: "record-0000", Status: delivery.StatusQueued, At: after(1)})
		subtest.checkList("of all", delivery.RecordQuery{}, "record-0000")
		stop()
	}
	t.Run("First", use)
	before := goroutines()
	for _, name := range []string{"Second", "Third"} {
		t.Run(name, use)
	}
	newSubtest(t, patience).eventually("all goroutines have ended", func() error { return newSince(before) })
}
