package deliverytest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// afterClose calls everything on a transport and a subscription that are
// closed.
func afterClose(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	t.send(transport, t.envelopes(4, delivery.Normal)...)
	held := t.receive(subscription, 4)
	t.ack(held[0])
	closed := t.subscribe(transport, 10)
	t.close(closed)
	t.close(closed)
	_, err := closed.Receive(t.boundedContext())
	t.checkClosed("Receive", err)

	t.close(transport)
	t.close(transport)
	t.checkReturns("the closed transport", func() { t.checkClosedTransport(transport, subscription) })
	if err := held[0].Ack(); !errors.Is(err, delivery.ErrSettled) {
		t.Errorf("Ack of what was acked before Close: %v, want ErrSettled", err)
	}
	if err := held[1].Ack(); !errors.Is(err, delivery.ErrStale) {
		t.Errorf("Ack after Close: %v, want ErrStale", err)
	}
	if err := held[2].Nack(); !errors.Is(err, delivery.ErrStale) {
		t.Errorf("Nack after Close: %v, want ErrStale", err)
	}
	if held[3].Priority() != delivery.Normal {
		t.Errorf("Priority after Close: %s", held[3].Priority())
	}
	t.decode(held[3])

	// The messages that were not settled come again.
	other := t.subscribe(t.open(), 10)
	t.ack(t.receive(other, 3)...)
	t.checkQuiet(other)
}

// checkClosed fails the test unless a call failed because of Close.
func (t *transportSubtest) checkClosed(call string, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if !errors.Is(err, delivery.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", call, err)
		}
	}
}

// checkClosedTransport calls everything on a transport that is closed, and on its
// subscription.
func (t *transportSubtest) checkClosedTransport(transport delivery.Transport, subscription delivery.Subscription) {
	ctx, batch := t.boundedContext(), t.envelopes(2, delivery.Normal)
	forEach := func(call string, errs []error) {
		if len(errs) != len(batch) {
			t.Errorf("%s after Close: %d errors for %d envelopes", call, len(errs), len(batch))
		}
		t.checkClosed(call, errs...)
	}
	forEach("Send", transport.Send(ctx, batch))
	_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	t.checkClosed("Subscribe", err)
	_, err = subscription.Receive(ctx)
	t.checkClosed("Receive", err)
	if delayer, ok := transport.(delivery.Delayer); ok {
		forEach("SendAfter", delayer.SendAfter(ctx, 0, batch))
		forEach("SendAfter", delayer.SendAfter(ctx, time.Minute, batch))
	}
	if depther, ok := transport.(delivery.Depther); ok {
		_, err := depther.Depth(ctx)
		t.checkClosed("Depth", err)
	}
	if pinger, ok := transport.(delivery.Pinger); ok {
		t.checkClosed("Ping", pinger.Ping(ctx))
	}
	if letterer, ok := transport.(delivery.DeadLetterer); ok {
		t.checkClosed("DeadLetter", letterer.DeadLetter(ctx, delivery.DeadLetter{ID: "late"}))
	}
	if pauser, ok := subscription.(delivery.Pauser); ok {
		t.checkClosed("Pause", pauser.Pause(ctx))
		t.checkClosed("Resume", pauser.Resume(ctx))
	}
}

// concurrentClose closes a transport, from several goroutines at once, while
// others send, receive and settle. No call hangs, and no message that was
// accepted is lost.
func concurrentClose(t *transportSubtest) {
	const rounds = 5
	var ledger Ledger
	stale := 0
	for range rounds {
		round := closingRound{
			transportSubtest: t, ctx: t.boundedContext(), transport: t.open(), ledger: &ledger, closed: make(chan struct{}),
		}
		round.run()
		stale += int(round.stale.Load())
	}
	subscription := t.subscribe(t.open(), 100)
	t.consume(subscription, &ledger)
	for held := t.receiveSome(subscription); len(held) > 0; held = t.receiveSome(subscription) {
		for _, incoming := range held {
			ledger.Effect(t.decode(incoming).ID) // the outcome of its Send was unknown
			t.ack(incoming)
		}
	}
	t.checkLedger(&ledger, stale)
}

// closingRound is one round of concurrentClose.
type closingRound struct {
	*transportSubtest
	ctx       context.Context
	transport delivery.Transport
	ledger    *Ledger
	stale     atomic.Int64   // acks that came too late
	working   sync.WaitGroup // until each publisher and the consumer have done something
	closed    chan struct{}
}

// run closes the transport while publishers and a consumer use it, and waits for
// their end.
func (r *closingRound) run() {
	const publishers, closers = 4, 3
	subscription := r.subscribe(r.transport, 10)
	var running, closing sync.WaitGroup
	r.working.Add(publishers + 1)
	running.Go(func() { r.consumeUntilClosed(subscription) })
	for range publishers {
		batch := r.envelopes(2000, delivery.Normal)
		running.Go(func() { r.publishUntilClosed(batch) })
	}
	r.working.Wait()
	for range closers {
		closing.Go(func() { r.close(r.transport) })
	}
	running.Go(func() {
		closing.Wait()
		close(r.closed)
	})
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-r.ctx.Done():
		r.Fatalf("Send, Receive or Close hang during Close: %s", stacks())
	}
}

func (r *closingRound) consumeUntilClosed(subscription delivery.Subscription) {
	started := sync.OnceFunc(r.working.Done)
	defer started()
	for {
		incomings, err := receiveNext(r.ctx, subscription)
		if err != nil {
			if !errors.Is(err, delivery.ErrClosed) {
				r.Errorf("Receive during Close: %v, want ErrClosed", err)
			}
			return
		}
		for _, incoming := range incomings {
			envelope, err := incoming.Envelope()
			if err != nil {
				r.Errorf("Envelope: %v", err)
				continue
			}
			r.ledger.Effect(envelope.ID)
			switch err := incoming.Ack(); {
			case errors.Is(err, delivery.ErrStale):
				r.stale.Add(1)
			case err != nil:
				r.Errorf("Ack during Close: %v, want nil or ErrStale", err)
			}
		}
		started()
	}
}

func (r *closingRound) publishUntilClosed(batch []delivery.Envelope) {
	started := sync.OnceFunc(r.working.Done)
	defer started()
	for i := range batch {
		if i == len(batch)-1 {
			// The last one is sent after Close, however fast the others were.
			select {
			case <-r.closed:
			case <-r.ctx.Done():
			}
		}
		switch errs := r.transport.Send(r.ctx, batch[i:i+1]); {
		case errs == nil:
			r.ledger.Sent(batch[i].ID)
			started()
		case errors.Is(errs[0], delivery.ErrClosed):
			return
		case !errors.Is(errs[0], delivery.ErrOutcomeUnknown):
			r.Errorf("Send during Close: %v, want ErrClosed or ErrOutcomeUnknown", errs[0])
			return
		}
	}
}
