package deliverytest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/esh3artech/barid/delivery"
)

func manyPublishersAndConsumers(r *rig) {
	const publishers, consumers, each = 8, 4, 250
	var ledger Ledger
	ctx, cancel := context.WithCancel(r.patience())
	defer cancel()
	transports := []delivery.Transport{r.open(), r.open()}
	subscriptions := make([]delivery.Subscription, consumers)
	for i := range subscriptions {
		subscriptions[i] = r.subscribe(transports[i%len(transports)], 20)
	}
	var publishing, consuming sync.WaitGroup
	for _, subscription := range subscriptions {
		consuming.Go(func() {
			for {
				incomings, err := next(ctx, subscription)
				if err != nil {
					return
				}
				for _, incoming := range incomings {
					envelope, err := incoming.Envelope()
					if err != nil {
						r.Errorf("Envelope: %v", err)
						continue
					}
					ledger.Effect(envelope.ID)
					if err := incoming.Ack(); err != nil {
						r.Errorf("Ack: %v", err)
					}
				}
			}
		})
	}
	priorities := delivery.Priorities()
	for publisher := range publishers {
		batch := r.envelopes(each, priorities[publisher%len(priorities)])
		publishing.Go(func() {
			for i := range batch {
				if errs := transports[publisher%len(transports)].Send(ctx, batch[i:i+1]); errs != nil {
					r.Errorf("Send: %v", errors.Join(errs...))
					return
				}
				ledger.Sent(batch[i].ID)
			}
		})
	}
	publishing.Wait()
	r.eventually("all messages have come", func() error { return ledger.Report().Err(allDuplicates) })
	cancel()
	consuming.Wait()
	if got := ledger.Report().Published; got != publishers*each {
		r.Errorf("%d messages were published, want %d", got, publishers*each)
	}
	r.settled(&ledger, 0)
}

func deathOfAConsumer(r *rig) {
	const n = 100
	publisher, dying, living := r.open(), r.open(), r.open()
	var ledger Ledger
	batch := r.envelopes(n, delivery.Normal)
	r.send(publisher, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	held := r.receive(r.subscribe(dying, 40), 40)
	// Some had their effect, and the death comes before the ack.
	for _, incoming := range held[:10] {
		ledger.Effect(r.decode(incoming).ID)
	}
	r.kill(dying)
	subscription := r.subscribe(living, 40)
	r.consume(subscription, &ledger)
	r.quiet(subscription)
	r.settled(&ledger, 10)
	if duplicates := ledger.Report().Duplicates; duplicates < 10 {
		r.Errorf("%d duplicates, want the 10 that nobody acked", duplicates)
	}
}

func lostConnections(r *rig) {
	if r.harness.Cut == nil {
		return
	}
	const rounds, each = 3, 40
	transport := r.open()
	subscription := r.subscribe(transport, each)
	var ledger Ledger
	bound := 0
	for range rounds {
		batch := r.envelopes(each, delivery.Normal)
		r.send(transport, batch...)
		for i := range batch {
			ledger.Sent(batch[i].ID)
		}
		held := r.some(subscription)
		for _, incoming := range held {
			ledger.Effect(r.decode(incoming).ID)
		}
		bound += len(held)
		r.harness.Cut(r.T, transport)
		for _, incoming := range held {
			if err := incoming.Ack(); err != nil && !errors.Is(err, delivery.ErrStale) {
				r.Errorf("Ack after the connection is gone: %v, want nil or ErrStale", err)
			}
		}
		// The same transport sends again by itself, and its subscription goes on.
		envelope := r.envelope(delivery.Normal)
		r.eventually("Send after the connection is gone", func() error {
			return errors.Join(transport.Send(r.patience(), []delivery.Envelope{envelope})...)
		})
		ledger.Sent(envelope.ID)
		bound++ // its outcome may have been unknown at first
		r.consume(subscription, &ledger)
	}
	for held := r.some(subscription); len(held) > 0; held = r.some(subscription) {
		for _, incoming := range held {
			ledger.Effect(r.decode(incoming).ID)
			r.ack(incoming)
		}
	}
	r.settled(&ledger, bound)
}

func reopenAgainAndAgain(r *rig) {
	const rounds, each, prefetch = 8, 30, 20
	var ledger Ledger
	for range rounds {
		transport := r.open()
		batch := r.envelopes(each, delivery.Normal)
		r.send(transport, batch...)
		for i := range batch {
			ledger.Sent(batch[i].ID)
		}
		held := r.receive(r.subscribe(transport, prefetch), prefetch)
		for _, incoming := range held[:prefetch/2] {
			ledger.Effect(r.decode(incoming).ID)
			if err := incoming.Ack(); err != nil {
				r.Errorf("Ack: %v", err)
			}
		}
		r.close(transport)
	}
	subscription := r.subscribe(r.open(), 100)
	r.consume(subscription, &ledger)
	r.quiet(subscription)
	r.settled(&ledger, 0)
}

// Close comes, several times at once, while others send, receive and settle.
// Nobody hangs, nothing that was accepted is lost.
func concurrentClose(r *rig) {
	const rounds, publishers, closers = 5, 4, 3
	var ledger Ledger
	stale := 0
	for range rounds {
		ctx := r.patience()
		transport := r.open()
		subscription := r.subscribe(transport, 10)
		var running, working sync.WaitGroup
		var unacked atomic.Int64
		closed := make(chan struct{})
		working.Add(publishers + 1)
		running.Go(func() {
			started := sync.OnceFunc(working.Done)
			defer started()
			for {
				incomings, err := next(ctx, subscription)
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
					ledger.Effect(envelope.ID)
					switch err := incoming.Ack(); {
					case errors.Is(err, delivery.ErrStale):
						unacked.Add(1)
					case err != nil:
						r.Errorf("Ack during Close: %v, want nil or ErrStale", err)
					}
				}
				started()
			}
		})
		for range publishers {
			batch := r.envelopes(2000, delivery.Normal)
			running.Go(func() {
				started := sync.OnceFunc(working.Done)
				defer started()
				for i := range batch {
					if i == len(batch)-1 {
						// However fast it was, one comes after Close.
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
						r.Errorf("Send during Close: %v, want ErrClosed or ErrOutcomeUnknown", errs[0])
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
					r.Errorf("Close: %v", err)
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
			r.Fatalf("Send, Receive or Close hang during Close: %s", stacks())
		}
		stale += int(unacked.Load())
	}
	subscription := r.subscribe(r.open(), 100)
	r.consume(subscription, &ledger)
	for held := r.some(subscription); len(held) > 0; held = r.some(subscription) {
		for _, incoming := range held {
			ledger.Effect(r.decode(incoming).ID) // of unknown outcome
			r.ack(incoming)
		}
	}
	r.settled(&ledger, stale)
}
