package deliverytest

import (
	"context"
	"errors"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// inTime runs what has to return by itself.
func (r *rig) inTime(what string, run func()) {
	r.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		run()
	}()
	timer := time.NewTimer(r.harness.Patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		r.Fatalf("%s hangs: %s", what, stacks())
	}
}

func deadlines(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	ended, cancel := context.WithCancel(r.Context())
	cancel()
	batch := r.envelopes(3, delivery.Normal)
	unsent := func(what string, errs []error) {
		r.Helper()
		if len(errs) != len(batch) {
			r.Fatalf("%s with an ended context: %d errors for %d envelopes", what, len(errs), len(batch))
		}
		for _, err := range errs {
			if !errors.Is(err, context.Canceled) {
				r.Errorf("%s with an ended context: %v, want context.Canceled", what, err)
			}
		}
	}
	r.inTime("Send with an ended context", func() { unsent("Send", transport.Send(ended, batch)) })
	if delayer, ok := r.delayer(transport); ok {
		r.inTime("SendAfter with an ended context", func() {
			unsent("SendAfter", delayer.SendAfter(ended, 10*time.Millisecond, batch))
		})
	}
	r.inTime("Subscribe with an ended context", func() {
		if _, err := transport.Subscribe(ended, delivery.SubscribeConfig{}); !errors.Is(err, context.Canceled) {
			r.Errorf("Subscribe with an ended context: %v, want context.Canceled", err)
		}
	})
	r.inTime("Receive with an ended context", func() {
		if got, err := subscription.Receive(ended); !errors.Is(err, context.Canceled) {
			r.Errorf("Receive with an ended context: %d messages, %v, want context.Canceled", len(got), err)
		}
	})
	short, cancel := context.WithTimeout(r.Context(), 20*time.Millisecond)
	defer cancel()
	r.inTime("Receive until its deadline", func() {
		if got, err := next(short, subscription); !errors.Is(err, context.DeadlineExceeded) {
			r.Errorf("Receive until its deadline: %d messages, %v, want context.DeadlineExceeded", len(got), err)
		}
	})
	r.quiet(subscription)

	// All goes on: none of it has done harm.
	r.send(transport, batch...)
	r.ack(r.receive(subscription, len(batch))...)
}

func cancelledReceivesLoseNothing(r *rig) {
	const n = 300
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	batch := r.envelopes(n, delivery.Normal)
	var ledger Ledger
	ctx := r.patience()
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
			r.Fatalf("not all have come: %s", ledger.Report())
		}
		// A machine that is too slow for these gets longer ones in the end.
		wait := time.Duration(i%20)*50*time.Microsecond + time.Duration(i/1000)*time.Millisecond
		short, cancel := context.WithTimeout(ctx, wait)
		incomings, err := next(short, subscription)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			r.Fatalf("Receive: %v", err)
		}
		for _, incoming := range incomings {
			ledger.Effect(r.decode(incoming).ID)
			r.ack(incoming)
		}
	}
	r.accepted(<-sending)
	r.quiet(subscription)
	r.settled(&ledger, 0)
}

func afterClose(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	r.send(transport, r.envelopes(4, delivery.Normal)...)
	held := r.receive(subscription, 4)
	r.ack(held[0])
	closed := r.subscribe(transport, 10)
	r.close(closed)
	r.close(closed)
	isClosed := func(what string, err error) {
		r.Helper()
		if !errors.Is(err, delivery.ErrClosed) {
			r.Errorf("%s after Close: %v, want ErrClosed", what, err)
		}
	}
	_, err := closed.Receive(r.patience())
	isClosed("Receive", err)

	r.close(transport)
	r.close(transport)
	batch := r.envelopes(2, delivery.Normal)
	r.inTime("the closed transport", func() {
		ctx := r.patience()
		errs := transport.Send(ctx, batch)
		if len(errs) != len(batch) {
			r.Errorf("Send after Close: %d errors for %d envelopes", len(errs), len(batch))
		}
		for _, err := range errs {
			isClosed("Send", err)
		}
		_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
		isClosed("Subscribe", err)
		_, err = subscription.Receive(ctx)
		isClosed("Receive", err)
		if delayer, ok := r.delayer(transport); ok {
			for _, delay := range []time.Duration{0, time.Minute} {
				errs := delayer.SendAfter(ctx, delay, batch)
				if len(errs) != len(batch) {
					r.Errorf("SendAfter after Close: %d errors for %d envelopes", len(errs), len(batch))
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
		r.Errorf("Ack of what was acked before Close: %v, want ErrSettled", err)
	}
	if err := held[1].Ack(); !errors.Is(err, delivery.ErrStale) {
		r.Errorf("Ack after Close: %v, want ErrStale", err)
	}
	if err := held[2].Nack(); !errors.Is(err, delivery.ErrStale) {
		r.Errorf("Nack after Close: %v, want ErrStale", err)
	}
	if held[3].Priority() != delivery.Normal {
		r.Errorf("Priority after Close: %s", held[3].Priority())
	}
	r.decode(held[3])

	// What was unsettled comes again.
	other := r.subscribe(r.open(), 10)
	r.ack(r.receive(other, 3)...)
	r.quiet(other)
}

func leavesNoGoroutines(r *rig) {
	use := func(end func(delivery.Transport)) {
		transport := r.harness.Open(r.T)
		subscription, err := transport.Subscribe(r.patience(), delivery.SubscribeConfig{Prefetch: 5})
		if err != nil {
			r.Fatalf("Subscribe: %v", err)
		}
		r.send(transport, r.envelopes(10, delivery.Normal)...)
		if delayer, ok := r.delayer(transport); ok {
			r.accepted(delayer.SendAfter(r.patience(), time.Hour, r.envelopes(2, delivery.Normal)))
		}
		r.ack(r.receive(subscription, 5)...)
		end(transport)
		r.close(subscription)
		r.close(transport)
	}
	before := goroutines()
	for range 3 {
		use(func(delivery.Transport) {})
		use(func(transport delivery.Transport) { r.kill(transport) })
	}
	r.eventually("all goroutines have ended", func() error { return newSince(before) })
}
