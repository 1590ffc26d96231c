package deliverytest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// transportSubtest is one subtest of TestTransport with its harness. Its methods
// fail the test when the transport does not do what it has to.
type transportSubtest struct {
	*subtest
	harness Harness
	// made is how many envelopes the test has made: their IDs are numbers.
	made int
}

func newTransportSubtest(t *testing.T, harness Harness) *transportSubtest {
	harness = harness.withDefaults()
	return &transportSubtest{subtest: newSubtest(t, harness.Patience), harness: harness}
}

// open opens a transport, which is closed at the test's end at the latest.
func (t *transportSubtest) open() delivery.Transport {
	t.Helper()
	transport := t.harness.Open(t.T)
	if transport == nil {
		t.Fatalf("Harness.Open returned nil")
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return transport
}

// kill ends the transport as if its process had been killed.
func (t *transportSubtest) kill(transport delivery.Transport) {
	t.Helper()
	if t.harness.Kill != nil {
		t.harness.Kill(t.T, transport)
		return
	}
	t.close(transport)
}

func (t *transportSubtest) close(closer interface{ Close() error }) {
	t.Helper()
	if err := closer.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func (t *transportSubtest) subscribe(transport delivery.Transport, prefetch int) delivery.Subscription {
	t.Helper()
	subscription, err := transport.Subscribe(t.boundedContext(), delivery.SubscribeConfig{Prefetch: prefetch})
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	t.Cleanup(func() { t.close(subscription) })
	return subscription
}

// envelope makes an envelope with an ID that the test has not used yet.
func (t *transportSubtest) envelope(priority delivery.Priority) delivery.Envelope {
	t.made++
	return delivery.Envelope{Message: delivery.Message{
		ID:        fmt.Sprintf("m%06d", t.made),
		Recipient: "recipient",
		Body:      []byte("body"),
		Priority:  priority,
		CreatedAt: time.Now(),
	}}
}

func (t *transportSubtest) envelopes(n int, priority delivery.Priority) []delivery.Envelope {
	batch := make([]delivery.Envelope, n)
	for i := range batch {
		batch[i] = t.envelope(priority)
	}
	return batch
}

// send sends what must be accepted.
func (t *transportSubtest) send(transport delivery.Transport, batch ...delivery.Envelope) {
	t.Helper()
	t.checkAccepted(transport.Send(t.boundedContext(), batch))
}

// checkAccepted fails the test unless a call of Send had no errors.
func (t *transportSubtest) checkAccepted(errs []error) {
	t.Helper()
	if errs != nil {
		t.Fatalf("Send: %v", errors.Join(errs...))
	}
}

// receiveNext receives something. It calls Receive again after an error that
// may be temporary, and returns ErrClosed and ctx's own error.
func receiveNext(ctx context.Context, subscription delivery.Subscription) ([]delivery.Incoming, error) {
	for {
		// A temporary error may come although the context ends right after it. Only a
		// Receive that began after the context's end has to return the context's error.
		ended := ctx.Err() != nil
		incomings, err := subscription.Receive(ctx)
		if err == nil && len(incomings) == 0 {
			return nil, errors.New("deliverytest: Receive returned nothing and no error")
		}
		if err == nil || ended || errors.Is(err, delivery.ErrClosed) || errors.Is(err, ctx.Err()) {
			return incomings, err
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// receive receives n messages, which the prefetch has to allow, and settles
// none.
func (t *transportSubtest) receive(subscription delivery.Subscription, n int) []delivery.Incoming {
	t.Helper()
	ctx := t.boundedContext()
	var all []delivery.Incoming
	for len(all) < n {
		incomings, err := receiveNext(ctx, subscription)
		if err != nil {
			t.Fatalf("Receive: got %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, incomings...)
	}
	if len(all) > n {
		t.Fatalf("Receive: got %d messages, want %d", len(all), n)
	}
	return all
}

// consume acks what comes until every message of the ledger was handled.
func (t *transportSubtest) consume(subscription delivery.Subscription, ledger *Ledger) {
	t.Helper()
	ctx := t.boundedContext()
	for ledger.Report().Err(allDuplicates) != nil {
		incomings, err := receiveNext(ctx, subscription)
		if err != nil {
			t.Fatalf("Receive: %v; %s", err, ledger.Report())
		}
		for _, incoming := range incomings {
			ledger.Effect(t.decode(incoming).ID)
			t.ack(incoming)
		}
	}
}

// decode returns the envelope of a message that must be decodable.
func (t *transportSubtest) decode(incoming delivery.Incoming) *delivery.Envelope {
	t.Helper()
	envelope, err := incoming.Envelope()
	if err != nil {
		t.Fatalf("Envelope: %v", err)
	}
	return envelope
}

// ack acks messages. They may be stale by now.
func (t *transportSubtest) ack(incomings ...delivery.Incoming) {
	t.Helper()
	for _, incoming := range incomings {
		if err := incoming.Ack(); err != nil && !errors.Is(err, delivery.ErrStale) {
			t.Errorf("Ack: %v", err)
		}
	}
}

// checkQuiet fails the test if a message comes within the harness's quiet time.
func (t *transportSubtest) checkQuiet(subscription delivery.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), t.harness.Quiet)
	defer cancel()
	incomings, err := receiveNext(ctx, subscription)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Receive: got %d messages and error %v, want none until the deadline", len(incomings), err)
	}
}

// checkLedger fails the test if a message was lost, or more came twice than
// expected.
func (t *transportSubtest) checkLedger(ledger *Ledger, duplicates int) {
	t.Helper()
	report := ledger.Report()
	if err := report.Err(duplicates + t.harness.Duplicates); err != nil {
		t.Errorf("%v", err)
	}
	t.Log(report)
}

// receiveSome receives what comes within the harness's quiet time, which may be
// nothing.
func (t *transportSubtest) receiveSome(subscription delivery.Subscription) []delivery.Incoming {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), t.harness.Quiet)
	defer cancel()
	incomings, err := receiveNext(ctx, subscription)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Receive: %v", err)
	}
	return incomings
}
