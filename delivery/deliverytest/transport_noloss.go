package deliverytest

import (
	"context"
	"errors"
	"sync"

	"github.com/esh3artech/barid/delivery"
)

// manyPublishersAndConsumers sends and consumes from several goroutines on two
// transports.
func manyPublishersAndConsumers(t *transportSubtest) {
	const publishers, consumers, each = 8, 4, 250
	var ledger Ledger
	ctx, cancel := context.WithCancel(t.boundedContext())
	defer cancel()
	transports := []delivery.Transport{t.open(), t.open()}
	subscriptions := make([]delivery.Subscription, consumers)
	for i := range subscriptions {
		subscriptions[i] = t.subscribe(transports[i%len(transports)], 20)
	}
	var publishing, consuming sync.WaitGroup
	for _, subscription := range subscriptions {
		consuming.Go(func() {
			for {
				incomings, err := receiveNext(ctx, subscription)
				if err != nil {
					return
				}
				for _, incoming := range incomings {
					envelope, err := incoming.Envelope()
					if err != nil {
						t.Errorf("Envelope: %v", err)
						continue
					}
					ledger.Effect(envelope.ID)
					if err := incoming.Ack(); err != nil {
						t.Errorf("Ack: %v", err)
					}
				}
			}
		})
	}
	priorities := delivery.Priorities()
	for publisher := range publishers {
		batch := t.envelopes(each, priorities[publisher%len(priorities)])
		publishing.Go(func() {
			for i := range batch {
				if errs := transports[publisher%len(transports)].Send(ctx, batch[i:i+1]); errs != nil {
					t.Errorf("Send: %v", errors.Join(errs...))
					return
				}
				ledger.Sent(batch[i].ID)
			}
		})
	}
	publishing.Wait()
	t.eventually("all messages have come", func() error { return ledger.Report().Err(allDuplicates) })
	cancel()
	consuming.Wait()
	if got := ledger.Report().Published; got != publishers*each {
		t.Errorf("%d messages were published, want %d", got, publishers*each)
	}
	t.checkLedger(&ledger, 0)
}

// deathOfAConsumer ends a consumer's process while it holds messages: the next
// consumer gets them.
func deathOfAConsumer(t *transportSubtest) {
	const n = 100
	publisher, ended, other := t.open(), t.open(), t.open()
	var ledger Ledger
	batch := t.envelopes(n, delivery.Normal)
	t.send(publisher, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	held := t.receive(t.subscribe(ended, 40), 40)
	// Some were handled, and the consumer's process ends before their ack.
	for _, incoming := range held[:10] {
		ledger.Effect(t.decode(incoming).ID)
	}
	t.kill(ended)
	subscription := t.subscribe(other, 40)
	t.consume(subscription, &ledger)
	t.checkQuiet(subscription)
	t.checkLedger(&ledger, 10)
	if duplicates := ledger.Report().Duplicates; duplicates < 10 {
		t.Errorf("%d duplicates, want the 10 that nobody acked", duplicates)
	}
}

// lostConnections cuts the connections of a transport again and again: it
// reconnects without help, and loses nothing.
func lostConnections(t *transportSubtest) {
	if t.harness.Cut == nil {
		return
	}
	const rounds, each = 3, 40
	transport := t.open()
	subscription := t.subscribe(transport, each)
	var ledger Ledger
	bound := 0
	for range rounds {
		batch := t.envelopes(each, delivery.Normal)
		t.send(transport, batch...)
		for i := range batch {
			ledger.Sent(batch[i].ID)
		}
		held := t.receiveSome(subscription)
		for _, incoming := range held {
			ledger.Effect(t.decode(incoming).ID)
		}
		bound += len(held)
		t.harness.Cut(t.T, transport)
		for _, incoming := range held {
			if err := incoming.Ack(); err != nil && !errors.Is(err, delivery.ErrStale) {
				t.Errorf("Ack after the connection is gone: %v, want nil or ErrStale", err)
			}
		}
		// The transport reconnects without help, and its subscription goes on.
		envelope := t.envelope(delivery.Normal)
		t.eventually("Send after the connection is gone", func() error {
			return errors.Join(transport.Send(t.boundedContext(), []delivery.Envelope{envelope})...)
		})
		ledger.Sent(envelope.ID)
		bound++ // it comes twice if the outcome of a Send was unknown
		t.consume(subscription, &ledger)
	}
	for held := t.receiveSome(subscription); len(held) > 0; held = t.receiveSome(subscription) {
		for _, incoming := range held {
			ledger.Effect(t.decode(incoming).ID)
			t.ack(incoming)
		}
	}
	t.checkLedger(&ledger, bound)
}

// reopenAgainAndAgain closes and opens transports while messages are in hand.
func reopenAgainAndAgain(t *transportSubtest) {
	const rounds, each, prefetch = 8, 30, 20
	var ledger Ledger
	for range rounds {
		transport := t.open()
		batch := t.envelopes(each, delivery.Normal)
		t.send(transport, batch...)
		for i := range batch {
			ledger.Sent(batch[i].ID)
		}
		held := t.receive(t.subscribe(transport, prefetch), prefetch)
		for _, incoming := range held[:prefetch/2] {
			ledger.Effect(t.decode(incoming).ID)
			if err := incoming.Ack(); err != nil {
				t.Errorf("Ack: %v", err)
			}
		}
		t.close(transport)
	}
	subscription := t.subscribe(t.open(), 100)
	t.consume(subscription, &ledger)
	t.checkQuiet(subscription)
	t.checkLedger(&ledger, 0)
}
