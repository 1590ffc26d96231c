package deliverytest

import (
	"errors"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// arrival is when messages were sent with a delay, and so when each may come.
type arrival struct {
	earliest, latest time.Time
	came             bool
}

// sendAfter sends with a delay what must be accepted. The time when the delay
// began is known only to lie between the call and its return.
func (r *rig) sendAfter(transport delivery.Delayer, delay time.Duration, batch []delivery.Envelope, arrivals map[string]*arrival) {
	r.Helper()
	delay = max(0, delay)
	before := time.Now()
	r.accepted(transport.SendAfter(r.patience(), delay, batch))
	after := time.Now()
	for i := range batch {
		arrivals[batch[i].ID] = &arrival{earliest: before.Add(delay), latest: after.Add(delay + r.harness.DelayAccuracy)}
	}
}

// await receives all arrivals and checks their times.
func (r *rig) await(subscription delivery.Subscription, arrivals map[string]*arrival) {
	r.Helper()
	ctx := r.patience()
	for came := 0; came < len(arrivals); {
		incomings, err := next(ctx, subscription)
		now := time.Now()
		if err != nil {
			r.Fatalf("Receive: got %d of %d delayed messages: %v", came, len(arrivals), err)
		}
		for _, incoming := range incomings {
			id := r.decode(incoming).ID
			r.ack(incoming)
			arrival, known := arrivals[id]
			switch {
			case !known:
				r.Errorf("message %s came, which was not sent", id)
				continue
			case arrival.came:
				r.Errorf("message %s came twice", id)
				continue
			case now.Before(arrival.earliest):
				r.Errorf("message %s came %s early", id, arrival.earliest.Sub(now))
			case now.After(arrival.latest):
				r.Errorf("message %s came %s later than the %s that are allowed", id, now.Sub(arrival.latest), r.harness.DelayAccuracy)
			}
			arrival.came = true
			came++
		}
	}
}

func (r *rig) delayer(transport delivery.Transport) (delivery.Delayer, bool) {
	delayer, ok := transport.(delivery.Delayer)
	return delayer, ok
}

func delays(r *rig) {
	transport := r.open()
	delayer, ok := r.delayer(transport)
	if !ok {
		return
	}
	subscription := r.subscribe(transport, 100)
	if errs := delayer.SendAfter(r.patience(), time.Second, nil); errs != nil {
		r.Errorf("SendAfter of an empty batch: %v, want nil", errs)
	}
	arrivals := map[string]*arrival{}
	// The longest goes first: nothing may wait behind it.
	for _, delay := range []time.Duration{
		3 * time.Second, 2*time.Second + 500*time.Millisecond, time.Second, 300 * time.Millisecond,
		20 * time.Millisecond, time.Nanosecond, 0, -time.Nanosecond, -time.Hour,
	} {
		for _, priority := range delivery.Priorities() {
			r.sendAfter(delayer, delay, []delivery.Envelope{r.full(priority)}, arrivals)
		}
	}
	kept := r.full(delivery.High)
	r.accepted(delayer.SendAfter(r.patience(), 400*24*time.Hour, []delivery.Envelope{kept}))
	r.await(subscription, arrivals)
	r.quiet(subscription)

	batch := []delivery.Envelope{kept}
	r.accepted(delayer.SendAfter(r.patience(), 100*time.Millisecond, batch))
	incoming := r.receive(subscription, 1)[0]
	if err := differences(&kept, r.decode(incoming)); err != nil {
		r.Errorf("the delayed message has changed: %v", err)
	}
	r.ack(incoming)
}

func manyDelays(r *rig) {
	const n, batches = 500, 5
	transport := r.open()
	delayer, ok := r.delayer(transport)
	if !ok {
		return
	}
	subscription := r.subscribe(transport, 100)
	arrivals := map[string]*arrival{}
	for i := range batches {
		delay := time.Second + time.Duration(batches-i)*100*time.Millisecond
		r.sendAfter(delayer, delay, r.envelopes(n/batches, delivery.Normal), arrivals)
	}
	// Meanwhile what is not delayed passes by.
	r.sendAfter(delayer, 0, r.envelopes(1, delivery.Low), arrivals)
	r.await(subscription, arrivals)
	r.quiet(subscription)
}

// Who sent with a delay need not be there when the time has come.
func delaysOutliveTheSender(r *rig) {
	sender := r.open()
	delayer, ok := r.delayer(sender)
	if !ok {
		return
	}
	arrivals := map[string]*arrival{}
	r.sendAfter(delayer, 1500*time.Millisecond, r.envelopes(20, delivery.Normal), arrivals)
	r.kill(sender)
	if errs := delayer.SendAfter(r.patience(), time.Second, r.envelopes(1, delivery.Normal)); len(errs) != 1 || errs[0] == nil {
		r.Errorf("SendAfter of a dead transport: %v, want an error", errors.Join(errs...))
	}
	subscription := r.subscribe(r.open(), 100)
	r.await(subscription, arrivals)
	r.quiet(subscription)
}
