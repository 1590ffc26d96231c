package deliverytest

import (
	"slices"

	"github.com/esh3artech/barid/delivery"
)

// keepsOrder receives the messages of one priority in the order in which they
// were sent.
func keepsOrder(t *transportSubtest) {
	const n = 1000
	transport := t.open()
	subscription := t.subscribe(transport, 50)
	batch := t.envelopes(n, delivery.High)
	for part := range slices.Chunk(batch, 33) {
		t.send(transport, part...)
	}
	ctx := t.boundedContext()
	for came := 0; came < n; {
		incomings, err := receiveNext(ctx, subscription)
		if err != nil {
			t.Fatalf("Receive: got %d of %d messages: %v", came, n, err)
		}
		for _, incoming := range incomings {
			if got := t.decode(incoming).ID; got != batch[came].ID {
				t.Fatalf("message %d is %s, want %s: order is lost", came, got, batch[came].ID)
			}
			came++
			t.ack(incoming)
		}
	}
}

// higherPriorityFirst receives messages of all priorities, the lowest of which
// were sent first. A transport may fetch from its queues concurrently, so that
// no complete order can be asked for. But each call of Receive returns the
// higher priorities first, and on average they come before the lower ones.
func higherPriorityFirst(t *transportSubtest) {
	const each = 20
	transport := t.open()
	priorities := delivery.Priorities()
	for _, priority := range slices.Backward(priorities[:]) {
		t.send(transport, t.envelopes(each, priority)...)
	}
	subscription := t.subscribe(transport, each)
	ctx := t.boundedContext()
	positions := map[delivery.Priority]int{}
	for came := 0; came < each*len(priorities); {
		incomings, err := receiveNext(ctx, subscription)
		if err != nil {
			t.Fatalf("Receive: got %d messages: %v", came, err)
		}
		if !slices.IsSortedFunc(incomings, func(a, b delivery.Incoming) int { return int(b.Priority()) - int(a.Priority()) }) {
			t.Errorf("Receive returned a lower priority before a higher one")
		}
		for _, incoming := range incomings {
			positions[incoming.Priority()] += came
			came++
			t.ack(incoming)
		}
	}
	if positions[delivery.Urgent] > positions[delivery.Low] {
		t.Errorf("urgent messages came at position %d on average, low ones at %d",
			positions[delivery.Urgent]/each, positions[delivery.Low]/each)
	}
}
