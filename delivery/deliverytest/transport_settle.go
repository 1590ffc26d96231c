package deliverytest

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/esh3artech/barid/delivery"
)

// settlesOnce settles an incoming twice, in every combination of Ack and Nack.
func settlesOnce(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
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
		t.send(transport, t.envelope(delivery.Normal))
		incoming := t.receive(subscription, 1)[0]
		first := make(chan error)
		go func() { first <- row.first(incoming) }() // any goroutine may settle
		if err := <-first; err != nil {
			t.Errorf("%s: the first returned %v", row.name, err)
		}
		for range 2 {
			if err := row.second(incoming); !errors.Is(err, delivery.ErrSettled) {
				t.Errorf("%s: the second returned %v, want ErrSettled", row.name, err)
			}
		}
		if row.comesAgain {
			t.ack(t.receive(subscription, 1)...)
		}
		t.checkQuiet(subscription)
	}
}

// settlesOnceAmongMany has several goroutines settle the same incoming, some by
// Ack and some by Nack: one of them wins. A nacked message comes again, an
// acked one does not.
func settlesOnceAmongMany(t *transportSubtest) {
	const n, settlers = 50, 8
	transport := t.open()
	subscription := t.subscribe(transport, n)
	batch := t.envelopes(n, delivery.Normal)
	t.send(transport, batch...)
	var nacked atomic.Int64
	for i, incoming := range t.receive(subscription, n) {
		var won atomic.Int64
		var all sync.WaitGroup
		for settler := range settlers {
			all.Go(func() {
				// The scheduler prefers the last goroutine, so it alternates between Ack
				// and Nack. In every tenth round all nack, so that some come again for sure.
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
					t.Errorf("settling: %v, want nil or ErrSettled", err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d goroutines settled one incoming, want 1", won.Load())
		}
	}
	t.ack(t.receive(subscription, int(nacked.Load()))...)
	t.checkQuiet(subscription)
}

// nackRedelivers nacks a message several times: it comes again, unchanged.
func nackRedelivers(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	sent := t.fullEnvelope(delivery.High)
	t.send(transport, sent)
	for n := range 5 {
		incoming := t.receive(subscription, 1)[0]
		t.checkRedeliveries(incoming, n > 0)
		if err := envelopeDifferences(&sent, t.decode(incoming)); err != nil {
			t.Errorf("the redelivered message has changed: %v", err)
		}
		if err := incoming.Nack(); err != nil {
			t.Fatalf("Nack: %v", err)
		}
	}
	// It comes to any subscription, so to another one after the first has closed.
	t.close(subscription)
	other := t.subscribe(transport, 10)
	last := t.receive(other, 1)
	t.checkRedeliveries(last[0], true)
	t.ack(last...)
	t.checkQuiet(other)
}

// checkRedeliveries checks what a delivery.RedeliveryTeller knows.
func (t *transportSubtest) checkRedeliveries(incoming delivery.Incoming, again bool) {
	teller, ok := incoming.(delivery.RedeliveryTeller)
	if !ok {
		return
	}
	times, crashes := teller.Redeliveries()
	if times < 0 || (times > 0) != again {
		t.Errorf("%d redeliveries; that it was delivered before is %t", times, again)
	}
	if want := t.decode(incoming).Crashes; crashes != want {
		t.Errorf("Redeliveries tells of %d crashes, the envelope of %d", crashes, want)
	}
}

// closeOfSubscriptionRedelivers closes a subscription with unsettled messages:
// they come to the next one.
func closeOfSubscriptionRedelivers(t *transportSubtest) {
	const n, acked = 40, 15
	transport := t.open()
	var ledger Ledger
	batch := t.envelopes(n, delivery.Normal)
	t.send(transport, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	first := t.subscribe(transport, 30)
	held := t.receive(first, 30)
	for _, incoming := range held[:acked] {
		ledger.Effect(t.decode(incoming).ID)
		if err := incoming.Ack(); err != nil {
			t.Errorf("Ack: %v", err)
		}
	}
	t.close(first)
	for _, incoming := range held[acked:] {
		if err := incoming.Ack(); !errors.Is(err, delivery.ErrStale) {
			t.Errorf("Ack after the subscription's Close: %v, want ErrStale", err)
		}
	}
	second := t.subscribe(transport, 30)
	t.consume(second, &ledger)
	t.checkQuiet(second)
	t.checkLedger(&ledger, 0)
}
