package deliverytest

import (
	"context"
	"errors"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// deadlines calls everything with a context that has ended, and Receive with
// one that ends meanwhile.
func deadlines(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	batch := t.envelopes(3, delivery.Normal)
	unsent := func(what string, errs []error) {
		t.Helper()
		if len(errs) != len(batch) {
			t.Fatalf("%s with an ended context: %d errors for %d envelopes", what, len(errs), len(batch))
		}
		for _, err := range errs {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s with an ended context: %v, want context.Canceled", what, err)
			}
		}
	}
	t.checkReturns("Send with an ended context", func() { unsent("Send", transport.Send(ended, batch)) })
	if delayer, ok := transport.(delivery.Delayer); ok {
		t.checkReturns("SendAfter with an ended context", func() {
			unsent("SendAfter", delayer.SendAfter(ended, 10*time.Millisecond, batch))
		})
	}
	t.checkReturns("Subscribe with an ended context", func() {
		if _, err := transport.Subscribe(ended, delivery.SubscribeConfig{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Subscribe with an ended context: %v, want context.Canceled", err)
		}
	})
	t.checkReturns("Receive with an ended context", func() {
		if got, err := subscription.Receive(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("Receive with an ended context: %d messages, %v, want context.Canceled", len(got), err)
		}
	})
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	t.checkReturns("Receive until its deadline", func() {
		if got, err := receiveNext(short, subscription); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Receive until its deadline: %d messages, %v, want context.DeadlineExceeded", len(got), err)
		}
	})
	t.checkQuiet(subscription)

	// After that the transport and the subscription work as before.
	t.send(transport, batch...)
	t.ack(t.receive(subscription, len(batch))...)
}

// cancelledReceivesLoseNothing receives with contexts that end very soon, while
// messages arrive.
func cancelledReceivesLoseNothing(t *transportSubtest) {
	const n = 300
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	batch := t.envelopes(n, delivery.Normal)
	var ledger Ledger
	ctx := t.boundedContext()
	sending := make(chan []error, 1)
	go func() {
		for i := range batch {
			if errs := transport.Send(ctx, batch[i:i+1]); errs != nil {
				sending <- errs
				return
			}
			ledger.Sent(batch[i].ID)
		}
		sending <- nil
	}()
	for i := 0; ledger.Report().Effects < n; i++ {
		if ctx.Err() != nil {
			t.Fatalf("not all have come: %s", ledger.Report())
		}
		// The waits become longer in the end, for a machine that is too slow for these.
		wait := time.Duration(i%20)*50*time.Microsecond + time.Duration(i/1000)*time.Millisecond
		short, cancel := context.WithTimeout(ctx, wait)
		incomings, err := receiveNext(short, subscription)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Receive: %v", err)
		}
		for _, incoming := range incomings {
			ledger.Effect(t.decode(incoming).ID)
			t.ack(incoming)
		}
	}
	t.checkAccepted(<-sending)
	t.checkQuiet(subscription)
	t.checkLedger(&ledger, 0)
}
