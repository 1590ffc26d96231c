package deliverytest

import (
	"errors"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// arrival is when a message that was sent with a delay may come.
type arrival struct {
	earliest, latest time.Time
	came             bool
}

// sendAfter sends with a delay what must be accepted, and adds when each
// message may come. The delay began at an unknown time between the call and its
// return.
func (t *transportSubtest) sendAfter(transport delivery.Delayer, delay time.Duration, batch []delivery.Envelope, arrivals map[string]*arrival) {
	t.Helper()
	delay = max(0, delay)
	before := time.Now()
	t.checkAccepted(transport.SendAfter(t.boundedContext(), delay, batch))
	after := time.Now()
	for i := range batch {
		arrivals[batch[i].ID] = &arrival{earliest: before.Add(delay), latest: after.Add(delay + t.harness.DelayAccuracy)}
	}
}

// checkArrivals receives all arrivals and checks their times.
func (t *transportSubtest) checkArrivals(subscription delivery.Subscription, arrivals map[string]*arrival) {
	t.Helper()
	ctx := t.boundedContext()
	for came := 0; came < len(arrivals); {
		incomings, err := receiveNext(ctx, subscription)
		now := time.Now()
		if err != nil {
			t.Fatalf("Receive: got %d of %d delayed messages: %v", came, len(arrivals), err)
		}
		for _, incoming := range incomings {
			id := t.decode(incoming).ID
			t.ack(incoming)
			arrival, known := arrivals[id]
			switch {
			case !known:
				t.Errorf("message %s came, which was not sent", id)
				continue
			case arrival.came:
				t.Errorf("message %s came twice", id)
				continue
			case now.Before(arrival.earliest):
				t.Errorf("message %s came %s early", id, arrival.earliest.Sub(now))
			case now.After(arrival.latest):
				t.Errorf("message %s came %s later than the %s that are allowed", id, now.Sub(arrival.latest), t.harness.DelayAccuracy)
			}
			arrival.came = true
			came++
		}
	}
}

func delays(t *transportSubtest) {
	transport := t.open()
	delayer, ok := transport.(delivery.Delayer)
	if !ok {
		return
	}
	subscription := t.subscribe(transport, 100)
	if errs := delayer.SendAfter(t.boundedContext(), time.Second, nil); errs != nil {
		t.Errorf("SendAfter of an empty batch: %v, want nil", errs)
	}
	arrivals := map[string]*arrival{}
	// The longest delay is sent first: no other message may wait behind it.
	for _, delay := range []time.Duration{
		3 * time.Second, 2*time.Second + 500*time.Millisecond, time.Second, 300 * time.Millisecond,
		20 * time.Millisecond, time.Nanosecond, 0, -time.Nanosecond, -time.Hour,
	} {
		for _, priority := range delivery.Priorities() {
			t.sendAfter(delayer, delay, []delivery.Envelope{t.fullEnvelope(priority)}, arrivals)
		}
	}
	kept := t.fullEnvelope(delivery.High)
	t.checkAccepted(delayer.SendAfter(t.boundedContext(), 400*24*time.Hour, []delivery.Envelope{kept}))
	t.checkArrivals(subscription, arrivals)
	t.checkQuiet(subscription)

	batch := []delivery.Envelope{kept}
	t.checkAccepted(delayer.SendAfter(t.boundedContext(), 100*time.Millisecond, batch))
	incoming := t.receive(subscription, 1)[0]
	if err := envelopeDifferences(&kept, t.decode(incoming)); err != nil {
		t.Errorf("the delayed message has changed: %v", err)
	}
	t.ack(incoming)
}

func manyDelays(t *transportSubtest) {
	const n, batches = 500, 5
	transport := t.open()
	delayer, ok := transport.(delivery.Delayer)
	if !ok {
		return
	}
	subscription := t.subscribe(transport, 100)
	arrivals := map[string]*arrival{}
	for i := range batches {
		delay := time.Second + time.Duration(batches-i)*100*time.Millisecond
		t.sendAfter(delayer, delay, t.envelopes(n/batches, delivery.Normal), arrivals)
	}
	// A message without a delay comes before them.
	t.sendAfter(delayer, 0, t.envelopes(1, delivery.Low), arrivals)
	t.checkArrivals(subscription, arrivals)
	t.checkQuiet(subscription)
}

// delaysOutliveTheSender ends the sender before the delay is over.
func delaysOutliveTheSender(t *transportSubtest) {
	sender := t.open()
	delayer, ok := sender.(delivery.Delayer)
	if !ok {
		return
	}
	arrivals := map[string]*arrival{}
	t.sendAfter(delayer, 1500*time.Millisecond, t.envelopes(20, delivery.Normal), arrivals)
	t.kill(sender)
	if errs := delayer.SendAfter(t.boundedContext(), time.Second, t.envelopes(1, delivery.Normal)); len(errs) != 1 || errs[0] == nil {
		t.Errorf("SendAfter of a dead transport: %v, want an error", errors.Join(errs...))
	}
	subscription := t.subscribe(t.open(), 100)
	t.checkArrivals(subscription, arrivals)
	t.checkQuiet(subscription)
}
