package deliverytest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// rig is one subtest with its harness. Its methods fail the test when the
// transport does not do what it has to.
type rig struct {
	*testing.T
	harness Harness
	sent    int

	mu    sync.Mutex
	ended bool
}

func newRig(t *testing.T, harness Harness) *rig {
	r := &rig{T: t, harness: harness.withDefaults()}
	t.Cleanup(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended = true
	})
	return r
}

// Errorf is testing's, but says nothing after the test's end: the goroutines of
// a transport that hung must not take the other tests down.
func (r *rig) Errorf(format string, args ...any) {
	r.Helper()
	r.complain(format, args...)
}

// Fatalf is testing's, with the same care. In another goroutine than the test's
// it ends that one.
func (r *rig) Fatalf(format string, args ...any) {
	r.Helper()
	if !r.complain(format, args...) {
		runtime.Goexit()
	}
	r.FailNow()
}

// complain says whether the test has not ended.
func (r *rig) complain(format string, args ...any) bool {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.T.Errorf(format, args...)
	}
	return !r.ended
}

// open opens a transport that is closed at the test's end at the latest.
func (r *rig) open() delivery.Transport {
	r.Helper()
	transport := r.harness.Open(r.T)
	if transport == nil {
		r.Fatalf("Harness.Open returned nil")
	}
	r.Cleanup(func() {
		if err := transport.Close(); err != nil {
			r.Errorf("Close: %v", err)
		}
	})
	return transport
}

// kill lets the transport die.
func (r *rig) kill(transport delivery.Transport) {
	r.Helper()
	if r.harness.Kill != nil {
		r.harness.Kill(r.T, transport)
		return
	}
	r.close(transport)
}

func (r *rig) close(closer interface{ Close() error }) {
	r.Helper()
	if err := closer.Close(); err != nil {
		r.Errorf("Close: %v", err)
	}
}

// patience is a context that ends when waiting longer makes no sense.
func (r *rig) patience() context.Context {
	ctx, cancel := context.WithTimeout(r.Context(), r.harness.Patience)
	r.Cleanup(cancel)
	return ctx
}

// pauseFor waits a moment before a thing is tried again.
func pauseFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// eventually calls holds until it returns nil.
func (r *rig) eventually(what string, holds func() error) {
	r.Helper()
	ctx := r.patience()
	for {
		err := holds()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			r.Fatalf("%s: not within %s: %v", what, r.harness.Patience, err)
		}
		pauseFor(ctx, 10*time.Millisecond)
	}
}

func (r *rig) subscribe(transport delivery.Transport, prefetch int) delivery.Subscription {
	r.Helper()
	subscription, err := transport.Subscribe(r.patience(), delivery.SubscribeConfig{Prefetch: prefetch})
	if err != nil {
		r.Fatalf("Subscribe: %v", err)
	}
	r.Cleanup(func() { r.close(subscription) })
	return subscription
}

// envelope makes an envelope with an ID that the test has not used yet.
func (r *rig) envelope(priority delivery.Priority) delivery.Envelope {
	r.sent++
	return delivery.Envelope{Message: delivery.Message{
		ID:        fmt.Sprintf("m%06d", r.sent),
		Recipient: "recipient",
		Body:      []byte("body"),
		Priority:  priority,
		CreatedAt: time.Now(),
	}}
}

func (r *rig) envelopes(n int, priority delivery.Priority) []delivery.Envelope {
	batch := make([]delivery.Envelope, n)
	for i := range batch {
		batch[i] = r.envelope(priority)
	}
	return batch
}

// send sends what must be accepted.
func (r *rig) send(transport delivery.Transport, batch ...delivery.Envelope) {
	r.Helper()
	r.accepted(transport.Send(r.patience(), batch))
}

func (r *rig) accepted(errs []error) {
	r.Helper()
	if errs != nil {
		r.Fatalf("Send: %v", errors.Join(errs...))
	}
}

// next receives something, and passes over errors that are passing. With what
// comes at the context's end, or after it, it returns.
func next(ctx context.Context, subscription delivery.Subscription) ([]delivery.Incoming, error) {
	for {
		// An error may be a passing one though the context ends right behind it: only
		// of a Receive that began after the end the context's error can be asked for.
		ended := ctx.Err() != nil
		incomings, err := subscription.Receive(ctx)
		if err == nil && len(incomings) == 0 {
			return nil, errors.New("deliverytest: Receive returned nothing and no error")
		}
		if err == nil || ended || errors.Is(err, delivery.ErrClosed) || errors.Is(err, ctx.Err()) {
			return incomings, err
		}
		pauseFor(ctx, 20*time.Millisecond)
	}
}

// receive receives n incomings, which the prefetch has to allow, and settles
// none.
func (r *rig) receive(subscription delivery.Subscription, n int) []delivery.Incoming {
	r.Helper()
	ctx := r.patience()
	var all []delivery.Incoming
	for len(all) < n {
		incomings, err := next(ctx, subscription)
		if err != nil {
			r.Fatalf("Receive: got %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, incomings...)
	}
	if len(all) > n {
		r.Fatalf("Receive: got %d messages, want %d", len(all), n)
	}
	return all
}

// consume acks what comes until every message of the ledger had its effect.
func (r *rig) consume(subscription delivery.Subscription, ledger *Ledger) {
	r.Helper()
	ctx := r.patience()
	for ledger.Report().Err(allDuplicates) != nil {
		incomings, err := next(ctx, subscription)
		if err != nil {
			r.Fatalf("Receive: %v; %s", err, ledger.Report())
		}
		for _, incoming := range incomings {
			ledger.Effect(r.decode(incoming).ID)
			r.ack(incoming)
		}
	}
}

// decode decodes what must be decodable.
func (r *rig) decode(incoming delivery.Incoming) *delivery.Envelope {
	r.Helper()
	envelope, err := incoming.Envelope()
	if err != nil {
		r.Fatalf("Envelope: %v", err)
	}
	return envelope
}

// ack acks what is in hand. It may be stale by now.
func (r *rig) ack(incomings ...delivery.Incoming) {
	r.Helper()
	for _, incoming := range incomings {
		if err := incoming.Ack(); err != nil && !errors.Is(err, delivery.ErrStale) {
			r.Errorf("Ack: %v", err)
		}
	}
}

// quiet checks that nothing comes.
func (r *rig) quiet(subscription delivery.Subscription) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), r.harness.Quiet)
	defer cancel()
	incomings, err := next(ctx, subscription)
	if !errors.Is(err, context.DeadlineExceeded) {
		r.Fatalf("Receive: got %d messages and error %v, want none until the deadline", len(incomings), err)
	}
}

// settled checks what the ledger says at the end.
func (r *rig) settled(ledger *Ledger, duplicates int) {
	r.Helper()
	report := ledger.Report()
	if err := report.Err(duplicates + r.harness.Duplicates); err != nil {
		r.Errorf("%v", err)
	}
	r.Log(report)
}

// some receives what comes within the quiet time, or nothing.
func (r *rig) some(subscription delivery.Subscription) []delivery.Incoming {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), r.harness.Quiet)
	defer cancel()
	incomings, err := next(ctx, subscription)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		r.Fatalf("Receive: %v", err)
	}
	return incomings
}
