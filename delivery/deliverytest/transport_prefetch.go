package deliverytest

import (
	"slices"

	"github.com/esh3artech/barid/delivery"
)

// prioritiesDoNotHoldEachOther receives higher priorities although the prefetch
// of the lowest is used up.
func prioritiesDoNotHoldEachOther(t *transportSubtest) {
	transport := t.open()
	t.send(transport, t.envelopes(50, delivery.Low)...)
	subscription := t.subscribe(transport, 5)
	held := t.receive(subscription, 5)
	for _, priority := range []delivery.Priority{delivery.Urgent, delivery.High, delivery.Normal} {
		sent := t.envelope(priority)
		t.send(transport, sent)
		incoming := t.receive(subscription, 1)[0]
		if got := t.decode(incoming).ID; got != sent.ID {
			t.Fatalf("got %s at %s, want %s at %s, past the low ones in hand", got, incoming.Priority(), sent.ID, priority)
		}
		t.ack(incoming)
	}
	t.ack(held...)
}

// prefetchIsExact holds as many messages of each queue as the prefetch allows,
// and gets one more for each that it settles.
func prefetchIsExact(t *transportSubtest) {
	const prefetch, waiting = 7, 40
	transport := t.open()
	for _, priority := range delivery.Priorities() {
		t.send(transport, t.envelopes(waiting, priority)...)
	}
	var queues []delivery.Priority
	for _, priority := range delivery.Priorities() {
		if queue := t.harness.QueueOf(priority); !slices.Contains(queues, queue) {
			queues = append(queues, queue)
		}
	}
	subscription := t.subscribe(transport, prefetch)
	held := map[delivery.Priority][]delivery.Incoming{} // by queue
	hold := func(incomings []delivery.Incoming) {
		for _, incoming := range incomings {
			queue := t.harness.QueueOf(incoming.Priority())
			held[queue] = append(held[queue], incoming)
		}
		for queue, incomings := range held {
			if len(incomings) > prefetch {
				t.Fatalf("%d messages of %s in hand, want at most %d", len(incomings), queue, prefetch)
			}
		}
	}
	hold(t.receive(subscription, len(queues)*prefetch))
	t.checkQuiet(subscription)
	// One more of a queue comes for each that is acked or nacked.
	for i, queue := range queues {
		t.ack(held[queue][0])
		held[queue] = held[queue][1:]
		hold(t.receive(subscription, 1))
		if len(held[queue]) != prefetch {
			t.Fatalf("round %d: settling one of %s brought one of another queue", i, queue)
		}
		if err := held[queue][0].Nack(); err != nil {
			t.Errorf("Nack: %v", err)
		}
		held[queue] = held[queue][1:]
		hold(t.receive(subscription, 1))
	}
	t.checkQuiet(subscription)
	all := 0
	for _, incomings := range held {
		t.ack(incomings...)
		all += len(incomings)
	}
	if all != len(queues)*prefetch {
		t.Errorf("%d messages in hand, want %d", all, len(queues)*prefetch)
	}
}

// subscriptionsCompete shares one queue among three subscriptions.
func subscriptionsCompete(t *transportSubtest) {
	const n = 200
	transport := t.open()
	var ledger Ledger
	subscriptions := []delivery.Subscription{
		t.subscribe(transport, 10), t.subscribe(transport, 10), t.subscribe(t.open(), 10),
	}
	batch := t.envelopes(n, delivery.Normal)
	t.send(transport, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	// Each in turn gets what its prefetch allows, and holds it until all have
	// received. In the first round each gets something, because two can't hold all.
	ctx := t.boundedContext()
	receive := func(i int) []delivery.Incoming {
		share, err := receiveNext(ctx, subscriptions[i])
		if err != nil {
			t.Fatalf("Receive of subscription %d, while others hold less than there is: %v", i, err)
		}
		return share
	}
	for ledger.Report().Err(allDuplicates) != nil {
		if ctx.Err() != nil {
			t.Fatalf("nothing comes any more: %s", ledger.Report())
		}
		held := slices.Clone(receive(0))
		for i := range subscriptions[1:] {
			held = append(held, receive(i+1)...)
		}
		receive = func(i int) []delivery.Incoming { return t.receiveSome(subscriptions[i]) }
		for _, incoming := range held {
			ledger.Effect(t.decode(incoming).ID)
			t.ack(incoming)
		}
	}
	t.checkLedger(&ledger, 0)
}
