package deliverytest

import (
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
	isClosed := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, delivery.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", what, err)
		}
	}
	_, err := closed.Receive(t.boundedContext())
	isClosed("Receive", err)

	t.close(transport)
	t.close(transport)
	batch := t.envelopes(2, delivery.Normal)
	t.checkReturns("the closed transport", func() {
		ctx := t.boundedContext()
		errs := transport.Send(ctx, batch)
		if len(errs) != len(batch) {
			t.Errorf("Send after Close: %d errors for %d envelopes", len(errs), len(batch))
		}
		for _, err := range errs {
			isClosed("Send", err)
		}
		_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
		isClosed("Subscribe", err)
		_, err = subscription.Receive(ctx)
		isClosed("Receive", err)
		if delayer, ok := transport.(delivery.Delayer); ok {
			for _, delay := range []time.Duration{0, time.Minute} {
				errs := delayer.SendAfter(ctx, delay, batch)
				if len(errs) != len(batch) {
					t.Errorf("SendAfter after Close: %d errors for %d envelopes", len(errs), len(batch))
				}
				for _, err := range errs {
					isClosed("SendAfter", err)
				}
			}
		}
		if depther, ok := transport.(delivery.Depther); ok {
			_, err := depther.Depth(ctx)
			isClosed("Depth", err)
		}
		if pinger, ok := transport.(delivery.Pinger); ok {
			isClosed("Ping", pinger.Ping(ctx))
		}
		if letterer, ok := transport.(delivery.DeadLetterer); ok {
			isClosed("DeadLetter", letterer.DeadLetter(ctx, delivery.DeadLetter{ID: "late"}))
		}
		if pauser, ok := subscription.(delivery.Pauser); ok {
			isClosed("Pause", pauser.Pause(ctx))
			isClosed("Resume", pauser.Resume(ctx))
		}
	})
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

// concurrentClose closes a transport, from several goroutines at once, while
// others send, receive and settle. No call hangs, and no message that was
// accepted is lost.
func concurrentClose(t *transportSubtest) {
	const rounds, publishers, closers = 5, 4, 3
	var ledger Ledger
	stale := 0
	for range rounds {
		ctx := t.boundedContext()
		transport := t.open()
		subscription := t.subscribe(transport, 10)
		var running, working sync.WaitGroup
		var unacked atomic.Int64
		closed := make(chan struct{})
		working.Add(publishers + 1)
		running.Go(func() {
			started := sync.OnceFunc(working.Done)
			defer started()
			for {
				incomings, err := receiveNext(ctx, subscription)
				if err != nil {
					if !errors.Is(err, delivery.ErrClosed) {
						t.Errorf("Receive during Close: %v, want ErrClosed", err)
					}
					return
				}
				for _, incoming := range incomings {
					envelope, err := incoming.Envelope()
					if err != nil {
						t.Errorf("Envelope: %v", err)
						continue
					}
					ledger.Effect(envelope.ID)
					switch err := incoming.Ack(); {
					case errors.Is(err, delivery.ErrStale):
						unacked.Add(1)
					case err != nil:
						t.Errorf("Ack during Close: %v, want nil or ErrStale", err)
					}
				}
				started()
			}
		})
		for range publishers {
			batch := t.envelopes(2000, delivery.Normal)
			running.Go(func() {
				started := sync.OnceFunc(working.Done)
				defer started()
				for i := range batch {
					if i == len(batch)-1 {
						// The last one is sent after Close, however fast the others were.
						select {
						case <-closed:
						case <-ctx.Done():
						}
					}
					switch errs := transport.Send(ctx, batch[i:i+1]); {
					case errs == nil:
						ledger.Sent(batch[i].ID)
						started()
					case errors.Is(errs[0], delivery.ErrClosed):
						return
					case !errors.Is(errs[0], delivery.ErrOutcomeUnknown):
						t.Errorf("Send during Close: %v, want ErrClosed or ErrOutcomeUnknown", errs[0])
						return
					}
				}
			})
		}
		working.Wait()
		var closing sync.WaitGroup
		for range closers {
			closing.Go(func() {
				if err := transport.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
		running.Go(func() {
			closing.Wait()
			close(closed)
		})
		ended := make(chan struct{})
		go func() {
			running.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-ctx.Done():
			t.Fatalf("Send, Receive or Close hang during Close: %s", stacks())
		}
		stale += int(unacked.Load())
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
