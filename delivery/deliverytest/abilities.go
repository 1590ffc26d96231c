package deliverytest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

func pause(r *rig) {
	transport := r.open()
	paused, other := r.subscribe(transport, 10), r.subscribe(transport, 10)
	pauser, ok := paused.(delivery.Pauser)
	if !ok {
		return
	}
	r.close(other)
	r.send(transport, r.envelope(delivery.Normal))
	held := r.receive(paused, 1)
	for range 2 {
		if err := pauser.Pause(r.patience()); err != nil {
			r.Fatalf("Pause: %v", err)
		}
	}
	// What comes meanwhile goes elsewhere, what is in hand stays.
	r.send(transport, r.envelopes(20, delivery.Normal)...)
	r.quiet(paused)
	other = r.subscribe(transport, 20)
	r.ack(r.receive(other, 20)...)
	r.quiet(other)
	for _, incoming := range held {
		if err := incoming.Ack(); err != nil {
			r.Errorf("Ack during the pause: %v", err)
		}
	}
	r.close(other)
	for range 2 {
		if err := pauser.Resume(r.patience()); err != nil {
			r.Fatalf("Resume: %v", err)
		}
	}
	r.send(transport, r.envelopes(5, delivery.High)...)
	r.ack(r.receive(paused, 5)...)
	r.quiet(paused)

	// A pause does not outlive its subscription, nor keep it from ending.
	if err := pauser.Pause(r.patience()); err != nil {
		r.Fatalf("Pause: %v", err)
	}
	r.send(transport, r.envelopes(3, delivery.Normal)...)
	r.close(paused)
	last := r.subscribe(transport, 10)
	r.ack(r.receive(last, 3)...)
}

func depth(r *rig) {
	transport := r.open()
	depther, ok := transport.(delivery.Depther)
	if !ok {
		return
	}
	waiting := func(want map[delivery.Priority]int64) map[delivery.Priority]delivery.Depth {
		r.Helper()
		var depths map[delivery.Priority]delivery.Depth
		r.eventually("Depth", func() error {
			var err error
			if depths, err = depther.Depth(r.patience()); err != nil {
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
	r.send(transport, r.envelopes(5, delivery.High)...)
	r.send(transport, r.envelopes(3, delivery.Low)...)
	full := map[delivery.Priority]int64{delivery.High: 5, delivery.Low: 3}
	depths := waiting(full)
	if oldest := depths[delivery.High].Oldest; oldest > time.Since(before) {
		r.Errorf("the oldest message waits for %s, more than the %s since it was sent", oldest, time.Since(before))
	}
	subscription := r.subscribe(transport, 2)
	held := r.receive(subscription, 4)
	r.ack(held[:1]...)
	r.close(subscription)
	// What was in hand waits again, what was acked is gone.
	full[held[0].Priority()]--
	waiting(full)
	rest := r.subscribe(transport, 10)
	r.ack(r.receive(rest, 7)...)
	waiting(nil)

	ended, cancel := context.WithCancel(r.Context())
	cancel()
	if _, err := depther.Depth(ended); !errors.Is(err, context.Canceled) {
		r.Errorf("Depth with an ended context: %v, want context.Canceled", err)
	}
}

func ping(r *rig) {
	transport := r.open()
	pinger, ok := transport.(delivery.Pinger)
	if !ok {
		return
	}
	if err := pinger.Ping(r.patience()); err != nil {
		r.Errorf("Ping: %v", err)
	}
	ended, cancel := context.WithCancel(r.Context())
	cancel()
	if err := pinger.Ping(ended); !errors.Is(err, context.Canceled) {
		r.Errorf("Ping with an ended context: %v, want context.Canceled", err)
	}
}

func name(r *rig) {
	transport := r.open()
	if namer, ok := transport.(delivery.Namer); ok && namer.Name() == "" {
		r.Errorf("Name is empty")
	}
}

func deadLetters(r *rig) {
	transport := r.open()
	letterer, ok := transport.(delivery.DeadLetterer)
	if !ok {
		return
	}
	letter := delivery.DeadLetter{
		ID: "letter", Envelope: r.full(delivery.High), Reason: delivery.ReasonExhausted,
		Error: "no answer", Source: "test", At: time.Now(),
	}
	malformed := delivery.DeadLetter{ID: "malformed", Raw: []byte{0xff}, Reason: delivery.ReasonMalformed, At: time.Now()}
	for range 2 { // putting again replaces
		if err := letterer.DeadLetter(r.patience(), letter, malformed); err != nil {
			r.Errorf("DeadLetter: %v", err)
		}
	}
	if err := letterer.DeadLetter(r.patience()); err != nil {
		r.Errorf("DeadLetter of nothing: %v", err)
	}
	ended, cancel := context.WithCancel(r.Context())
	cancel()
	if err := letterer.DeadLetter(ended, letter); !errors.Is(err, context.Canceled) {
		r.Errorf("DeadLetter with an ended context: %v, want context.Canceled", err)
	}
}
