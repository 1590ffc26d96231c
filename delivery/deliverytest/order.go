package deliverytest

import (
	"slices"

	"github.com/esh3artech/barid/delivery"
)

func keepsOrder(r *rig) {
	const n = 1000
	transport := r.open()
	subscription := r.subscribe(transport, 50)
	batch := r.envelopes(n, delivery.High)
	for part := range slices.Chunk(batch, 33) {
		r.send(transport, part...)
	}
	ctx := r.patience()
	for came := 0; came < n; {
		incomings, err := next(ctx, subscription)
		if err != nil {
			r.Fatalf("Receive: got %d of %d messages: %v", came, n, err)
		}
		for _, incoming := range incomings {
			if got := r.decode(incoming).ID; got != batch[came].ID {
				r.Fatalf("message %d is %s, want %s: order is lost", came, got, batch[came].ID)
			}
			came++
			r.ack(incoming)
		}
	}
}

// Messages of all priorities wait, the lowest were sent first. A transport may
// fetch from its queues side by side, so that a whole order can't be asked for;
// but what has arrived is handed over highest first, and on the whole the
// higher ones come before the lower.
func higherPriorityFirst(r *rig) {
	const each = 20
	transport := r.open()
	priorities := delivery.Priorities()
	for _, priority := range slices.Backward(priorities[:]) {
		r.send(transport, r.envelopes(each, priority)...)
	}
	subscription := r.subscribe(transport, each)
	ctx := r.patience()
	positions := map[delivery.Priority]int{}
	for came := 0; came < each*len(priorities); {
		incomings, err := next(ctx, subscription)
		if err != nil {
			r.Fatalf("Receive: got %d messages: %v", came, err)
		}
		if !slices.IsSortedFunc(incomings, func(a, b delivery.Incoming) int { return int(b.Priority()) - int(a.Priority()) }) {
			r.Errorf("Receive returned a lower priority before a higher one")
		}
		for _, incoming := range incomings {
			positions[incoming.Priority()] += came
			came++
			r.ack(incoming)
		}
	}
	if positions[delivery.Urgent] > positions[delivery.Low] {
		r.Errorf("urgent messages came at position %d on average, low ones at %d",
			positions[delivery.Urgent]/each, positions[delivery.Low]/each)
	}
}

func prioritiesDoNotHoldEachOther(r *rig) {
	transport := r.open()
	r.send(transport, r.envelopes(50, delivery.Low)...)
	subscription := r.subscribe(transport, 5)
	held := r.receive(subscription, 5)
	for _, priority := range []delivery.Priority{delivery.Urgent, delivery.High, delivery.Normal} {
		sent := r.envelope(priority)
		r.send(transport, sent)
		incoming := r.receive(subscription, 1)[0]
		if got := r.decode(incoming).ID; got != sent.ID {
			r.Fatalf("got %s at %s, want %s at %s, past the low ones in hand", got, incoming.Priority(), sent.ID, priority)
		}
		r.ack(incoming)
	}
	r.ack(held...)
}

func prefetchIsExact(r *rig) {
	const prefetch, waiting = 7, 40
	transport := r.open()
	for _, priority := range delivery.Priorities() {
		r.send(transport, r.envelopes(waiting, priority)...)
	}
	var queues []delivery.Priority
	for _, priority := range delivery.Priorities() {
		if queue := r.harness.QueueOf(priority); !slices.Contains(queues, queue) {
			queues = append(queues, queue)
		}
	}
	subscription := r.subscribe(transport, prefetch)
	held := map[delivery.Priority][]delivery.Incoming{} // by queue
	hold := func(incomings []delivery.Incoming) {
		for _, incoming := range incomings {
			queue := r.harness.QueueOf(incoming.Priority())
			held[queue] = append(held[queue], incoming)
		}
		for queue, incomings := range held {
			if len(incomings) > prefetch {
				r.Fatalf("%d messages of %s in hand, want at most %d", len(incomings), queue, prefetch)
			}
		}
	}
	hold(r.receive(subscription, len(queues)*prefetch))
	r.quiet(subscription)
	// One more of a queue comes for each that is settled, however it is settled.
	for i, queue := range queues {
		r.ack(held[queue][0])
		held[queue] = held[queue][1:]
		hold(r.receive(subscription, 1))
		if len(held[queue]) != prefetch {
			r.Fatalf("round %d: settling one of %s brought one of another queue", i, queue)
		}
		if err := held[queue][0].Nack(); err != nil {
			r.Errorf("Nack: %v", err)
		}
		held[queue] = held[queue][1:]
		hold(r.receive(subscription, 1))
	}
	r.quiet(subscription)
	all := 0
	for _, incomings := range held {
		r.ack(incomings...)
		all += len(incomings)
	}
	if all != len(queues)*prefetch {
		r.Errorf("%d messages in hand, want %d", all, len(queues)*prefetch)
	}
}

func subscriptionsCompete(r *rig) {
	const n = 200
	transport := r.open()
	var ledger Ledger
	subscriptions := []delivery.Subscription{
		r.subscribe(transport, 10), r.subscribe(transport, 10), r.subscribe(r.open(), 10),
	}
	batch := r.envelopes(n, delivery.Normal)
	r.send(transport, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	// Each in turn gets what its prefetch allows, and keeps it until all have. The
	// first time nobody goes away empty-handed: there are more than two can hold.
	ctx := r.patience()
	receive := func(i int) []delivery.Incoming {
		share, err := next(ctx, subscriptions[i])
		if err != nil {
			r.Fatalf("Receive of subscription %d, while others hold less than there is: %v", i, err)
		}
		return share
	}
	for ledger.Report().Err(allDuplicates) != nil {
		if ctx.Err() != nil {
			r.Fatalf("nothing comes any more: %s", ledger.Report())
		}
		held := slices.Clone(receive(0))
		for i := range subscriptions[1:] {
			held = append(held, receive(i+1)...)
		}
		receive = func(i int) []delivery.Incoming { return r.some(subscriptions[i]) }
		for _, incoming := range held {
			ledger.Effect(r.decode(incoming).ID)
			r.ack(incoming)
		}
	}
	r.settled(&ledger, 0)
}
