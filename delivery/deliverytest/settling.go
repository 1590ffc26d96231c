package deliverytest

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/esh3artech/barid/delivery"
)

func settlesOnce(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	ack, nack := delivery.Incoming.Ack, delivery.Incoming.Nack
	for _, row := range []struct {
		name          string
		first, second func(delivery.Incoming) error
		comesAgain    bool
	}{
		{"Ack, Ack", ack, ack, false},
		{"Ack, Nack", ack, nack, false},
		{"Nack, Nack", nack, nack, true},
		{"Nack, Ack", nack, ack, true},
	} {
		r.send(transport, r.envelope(delivery.Normal))
		incoming := r.receive(subscription, 1)[0]
		first := make(chan error)
		go func() { first <- row.first(incoming) }() // any goroutine may settle
		if err := <-first; err != nil {
			r.Errorf("%s: the first returned %v", row.name, err)
		}
		for range 2 {
			if err := row.second(incoming); !errors.Is(err, delivery.ErrSettled) {
				r.Errorf("%s: the second returned %v, want ErrSettled", row.name, err)
			}
		}
		if row.comesAgain {
			r.ack(r.receive(subscription, 1)...)
		}
		r.quiet(subscription)
	}
}

// Many goroutines settle the same incoming, some by Ack, some by Nack: one
// wins. What was nacked comes again, what was acked does not.
func settlesOnceAmongMany(r *rig) {
	const n, settlers = 50, 8
	transport := r.open()
	subscription := r.subscribe(transport, n)
	batch := r.envelopes(n, delivery.Normal)
	r.send(transport, batch...)
	var nacked atomic.Int64
	for i, incoming := range r.receive(subscription, n) {
		var won atomic.Int64
		var all sync.WaitGroup
		for settler := range settlers {
			all.Go(func() {
				// The scheduler likes the last one: it acks one time and nacks the next.
				// Now and then all nack, so that some surely come again.
				nack := (i+settler)%2 == 0 || i%10 == 0
				settle := incoming.Ack
				if nack {
					settle = incoming.Nack
				}
				switch err := settle(); {
				case err == nil:
					won.Add(1)
					if nack {
						nacked.Add(1)
					}
				case !errors.Is(err, delivery.ErrSettled):
					r.Errorf("settling: %v, want nil or ErrSettled", err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			r.Fatalf("%d goroutines settled one incoming, want 1", won.Load())
		}
	}
	r.ack(r.receive(subscription, int(nacked.Load()))...)
	r.quiet(subscription)
}

func nackRedelivers(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	sent := r.full(delivery.High)
	r.send(transport, sent)
	for range 5 {
		incoming := r.receive(subscription, 1)[0]
		if err := differences(&sent, r.decode(incoming)); err != nil {
			r.Errorf("the redelivered message has changed: %v", err)
		}
		if err := incoming.Nack(); err != nil {
			r.Fatalf("Nack: %v", err)
		}
	}
	// It comes to anyone: here, when the first subscription is gone, to another.
	r.close(subscription)
	other := r.subscribe(transport, 10)
	r.ack(r.receive(other, 1)...)
	r.quiet(other)
}

func closeOfSubscriptionRedelivers(r *rig) {
	const n, acked = 40, 15
	transport := r.open()
	var ledger Ledger
	batch := r.envelopes(n, delivery.Normal)
	r.send(transport, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	first := r.subscribe(transport, 30)
	held := r.receive(first, 30)
	for _, incoming := range held[:acked] {
		ledger.Effect(r.decode(incoming).ID)
		if err := incoming.Ack(); err != nil {
			r.Errorf("Ack: %v", err)
		}
	}
	r.close(first)
	for _, incoming := range held[acked:] {
		if err := incoming.Ack(); !errors.Is(err, delivery.ErrStale) {
			r.Errorf("Ack after the subscription's Close: %v, want ErrStale", err)
		}
	}
	second := r.subscribe(transport, 30)
	r.consume(second, &ledger)
	r.quiet(second)
	r.settled(&ledger, 0)
}
