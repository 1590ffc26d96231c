package deliverytest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// stale asks incomings whether they are stale, if they are delivery.StaleTellers:
// those of a lost connection and of a closed subscription are, all others are not,
// settled or not.
func stale(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	t.send(transport, t.envelopes(4, delivery.Normal)...)
	held := t.receive(subscription, 4)
	if _, ok := held[0].(delivery.StaleTeller); !ok {
		return
	}
	check := func(want bool, when string, incomings ...delivery.Incoming) {
		t.Helper()
		for _, incoming := range incomings {
			if incoming.(delivery.StaleTeller).Stale() != want {
				t.Errorf("Stale is %t %s", !want, when)
			}
		}
	}
	check(false, "at first", held...)
	if t.harness.Cut != nil {
		t.harness.Cut(t.T, transport)
		again := t.receive(subscription, 4)
		check(true, "after the connection is gone", held...)
		if err := held[0].Ack(); !errors.Is(err, delivery.ErrStale) {
			t.Errorf("Ack of a stale incoming: %v, want ErrStale", err)
		}
		check(false, "of what has come again", again...)
		held = again
	}
	t.ack(held[0])
	check(false, "after Ack", held[0])
	t.close(subscription)
	check(true, "after the subscription's Close", held[1:]...)
}

// pause pauses and resumes a subscription, if it is a delivery.Pauser.
func pause(t *transportSubtest) {
	transport := t.open()
	paused, other := t.subscribe(transport, 10), t.subscribe(transport, 10)
	pauser, ok := paused.(delivery.Pauser)
	if !ok {
		return
	}
	t.close(other)
	t.send(transport, t.envelope(delivery.Normal))
	held := t.receive(paused, 1)
	for range 2 {
		if err := pauser.Pause(t.boundedContext()); err != nil {
			t.Fatalf("Pause: %v", err)
		}
	}
	// Messages that come meanwhile go to another subscription. Those that were
	// received before can be settled.
	t.send(transport, t.envelopes(20, delivery.Normal)...)
	t.checkQuiet(paused)
	other = t.subscribe(transport, 20)
	t.ack(t.receive(other, 20)...)
	t.checkQuiet(other)
	for _, incoming := range held {
		if err := incoming.Ack(); err != nil {
			t.Errorf("Ack during the pause: %v", err)
		}
	}
	t.close(other)
	for range 2 {
		if err := pauser.Resume(t.boundedContext()); err != nil {
			t.Fatalf("Resume: %v", err)
		}
	}
	t.send(transport, t.envelopes(5, delivery.High)...)
	t.ack(t.receive(paused, 5)...)
	t.checkQuiet(paused)

	// A subscription that is paused can be closed, and its pause ends with it.
	if err := pauser.Pause(t.boundedContext()); err != nil {
		t.Fatalf("Pause: %v", err)
	}
	t.send(transport, t.envelopes(3, delivery.Normal)...)
	t.close(paused)
	last := t.subscribe(transport, 10)
	t.ack(t.receive(last, 3)...)
}

// depth compares Depth with what was sent and settled, if there is a
// delivery.Depther.
func depth(t *transportSubtest) {
	transport := t.open()
	depther, ok := transport.(delivery.Depther)
	if !ok {
		return
	}
	waiting := func(want map[delivery.Priority]int64) map[delivery.Priority]delivery.Depth {
		t.Helper()
		var depths map[delivery.Priority]delivery.Depth
		t.eventually("Depth", func() error {
			var err error
			if depths, err = depther.Depth(t.boundedContext()); err != nil {
				return err
			}
			for _, priority := range delivery.Priorities() {
				depth := depths[priority]
				if depth.Messages != want[priority] {
					return fmt.Errorf("%d messages of %s wait, want %d", depth.Messages, priority, want[priority])
				}
				if depth.Oldest < 0 || (depth.Messages == 0 && depth.Oldest != 0) {
					return fmt.Errorf("the oldest of %d messages of %s waits for %s", depth.Messages, priority, depth.Oldest)
				}
			}
			return nil
		})
		return depths
	}
	waiting(nil)
	before := time.Now()
	t.send(transport, t.envelopes(5, delivery.High)...)
	t.send(transport, t.envelopes(3, delivery.Low)...)
	full := map[delivery.Priority]int64{delivery.High: 5, delivery.Low: 3}
	depths := waiting(full)
	if oldest := depths[delivery.High].Oldest; oldest > time.Since(before) {
		t.Errorf("the oldest message waits for %s, more than the %s since it was sent", oldest, time.Since(before))
	}
	subscription := t.subscribe(transport, 2)
	held := t.receive(subscription, 4)
	t.ack(held[:1]...)
	t.close(subscription)
	// Unsettled messages wait again, and the acked one is gone.
	full[held[0].Priority()]--
	waiting(full)
	rest := t.subscribe(transport, 10)
	t.ack(t.receive(rest, 7)...)
	waiting(nil)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := depther.Depth(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Depth with an ended context: %v, want context.Canceled", err)
	}
}

// ping calls Ping, if the transport is a delivery.Pinger.
func ping(t *transportSubtest) {
	transport := t.open()
	pinger, ok := transport.(delivery.Pinger)
	if !ok {
		return
	}
	if err := pinger.Ping(t.boundedContext()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pinger.Ping(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Ping with an ended context: %v, want context.Canceled", err)
	}
}

// name asks for the name, if the transport is a delivery.Namer.
func name(t *transportSubtest) {
	transport := t.open()
	if namer, ok := transport.(delivery.Namer); ok && namer.Name() == "" {
		t.Errorf("Name is empty")
	}
}

// deadLetters puts dead letters, if the transport is a delivery.DeadLetterer.
func deadLetters(t *transportSubtest) {
	transport := t.open()
	letterer, ok := transport.(delivery.DeadLetterer)
	if !ok {
		return
	}
	letter := delivery.DeadLetter{
		ID: "letter", Envelope: t.fullEnvelope(delivery.High), Reason: delivery.ReasonExhausted,
		Error: "no answer", Source: "test", At: time.Now(),
	}
	malformed := delivery.DeadLetter{ID: "malformed", Raw: []byte{0xff}, Reason: delivery.ReasonMalformed, At: time.Now()}
	for range 2 { // putting a letter again replaces it
		if err := letterer.DeadLetter(t.boundedContext(), letter, malformed); err != nil {
			t.Errorf("DeadLetter: %v", err)
		}
	}
	if err := letterer.DeadLetter(t.boundedContext()); err != nil {
		t.Errorf("DeadLetter of nothing: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := letterer.DeadLetter(ended, letter); !errors.Is(err, context.Canceled) {
		t.Errorf("DeadLetter with an ended context: %v, want context.Canceled", err)
	}
}
