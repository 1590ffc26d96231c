package deliverytest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// differences names the fields of an envelope that are not as they were sent.
// Nil and empty are the same: a wire need not tell them apart. Times are the
// same instant, to the nanosecond.
func differences(want, got *delivery.Envelope) error {
	var errs []error
	differ := func(field string, want, got any) {
		errs = append(errs, fmt.Errorf("%s is %.80v, want %.80v", field, got, want))
	}
	for _, field := range []struct{ name, want, got string }{
		{"ID", want.ID, got.ID},
		{"IdempotencyKey", want.IdempotencyKey, got.IdempotencyKey},
		{"Recipient", want.Recipient, got.Recipient},
		{"Subject", want.Subject, got.Subject},
		{"Type", want.Type, got.Type},
		{"ContentType", want.ContentType, got.ContentType},
	} {
		if field.want != field.got {
			differ(field.name, field.want, field.got)
		}
	}
	if !bytes.Equal(want.Body, got.Body) {
		errs = append(errs, fmt.Errorf("the Body of %d bytes is not the one of %d bytes that was sent", len(got.Body), len(want.Body)))
	}
	if !maps.Equal(want.Headers, got.Headers) {
		differ("Headers", want.Headers, got.Headers)
	}
	for _, field := range []struct {
		name      string
		want, got time.Time
	}{
		{"CreatedAt", want.CreatedAt, got.CreatedAt},
		{"NotBefore", want.NotBefore, got.NotBefore},
		{"ExpiresAt", want.ExpiresAt, got.ExpiresAt},
	} {
		if !field.want.Equal(field.got) {
			differ(field.name, field.want, field.got)
		}
	}
	if want.Priority != got.Priority {
		differ("Priority", want.Priority, got.Priority)
	}
	if want.RequireAck != got.RequireAck {
		differ("RequireAck", want.RequireAck, got.RequireAck)
	}
	if want.Attempt != got.Attempt {
		differ("Attempt", want.Attempt, got.Attempt)
	}
	if want.Generation != got.Generation {
		differ("Generation", want.Generation, got.Generation)
	}
	if !slices.EqualFunc(want.History, got.History, func(a, b delivery.Failure) bool {
		return a.At.Equal(b.At) && a.Attempt == b.Attempt && a.Error == b.Error
	}) {
		differ("History", want.History, got.History)
	}
	return errors.Join(errs...)
}

// full is an envelope with something in every field.
func (r *rig) full(priority delivery.Priority) delivery.Envelope {
	at := time.Date(2026, 2, 28, 23, 59, 59, 123456789, time.UTC)
	envelope := r.envelope(priority)
	envelope.IdempotencyKey = "order/1 ünïcödé ٣"
	envelope.Recipient = "+966500000001, \"Ω\"\n"
	envelope.Subject = "موضوع \U0001F4EC " + strings.Repeat("s", 900)
	envelope.Type = "order.created"
	envelope.ContentType = "application/json; charset=utf-8"
	envelope.Headers = map[string]string{"empty": "", "Case": "kept", "case": "too", "ключ": "значение\x00\t", "x-death": "a header like any other"}
	envelope.CreatedAt, envelope.NotBefore, envelope.ExpiresAt = at, at.Add(time.Nanosecond), at.Add(100*365*24*time.Hour)
	envelope.RequireAck = true
	envelope.Attempt, envelope.Generation = 7, 3
	for i := range delivery.MaxHistory {
		envelope.History = append(envelope.History, delivery.Failure{
			At: at.Add(time.Duration(i)), Attempt: i, Error: "no answer; \"quoted\", ünïcödé " + strings.Repeat("e", 400),
		})
	}
	return envelope
}

func keepsEveryField(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 100)
	minimal := delivery.Envelope{Message: delivery.Message{ID: "minimal", Recipient: "r"}}
	manyHeaders := r.envelope(delivery.Normal)
	manyHeaders.Headers = map[string]string{}
	for i := range 200 {
		manyHeaders.Headers[fmt.Sprintf("header-%03d", i)] = strings.Repeat("v", i)
	}
	longest := r.envelope(delivery.Normal)
	longest.ID = strings.Repeat("i", delivery.MaxIDBytes)
	longest.Type, longest.ContentType = strings.Repeat("t", delivery.MaxIDBytes), strings.Repeat("c", delivery.MaxIDBytes)
	longest.IdempotencyKey = strings.Repeat("k", delivery.MaxAttributeBytes)
	longest.Recipient, longest.Subject = strings.Repeat("r", delivery.MaxAttributeBytes), strings.Repeat("s", delivery.MaxAttributeBytes)
	longest.Headers = map[string]string{strings.Repeat("h", delivery.MaxIDBytes): strings.Repeat("v", delivery.MaxHeaderBytes-delivery.MaxIDBytes)}
	sent := []delivery.Envelope{
		minimal, manyHeaders, longest,
		r.full(delivery.Urgent), r.full(delivery.High), r.full(delivery.Normal), r.full(delivery.Low),
	}
	r.send(transport, sent...)
	got := map[string]delivery.Incoming{}
	for _, incoming := range r.receive(subscription, len(sent)) {
		got[r.decode(incoming).ID] = incoming
	}
	for i := range sent {
		incoming, ok := got[sent[i].ID]
		if !ok {
			r.Errorf("message %.20q did not come", sent[i].ID)
			continue
		}
		if incoming.Priority() != sent[i].Priority {
			r.Errorf("message %.20q: Incoming.Priority is %s, want %s", sent[i].ID, incoming.Priority(), sent[i].Priority)
		}
		if err := differences(&sent[i], r.decode(incoming)); err != nil {
			r.Errorf("message %.20q: %v", sent[i].ID, err)
		}
		if err := differences(r.decode(incoming), r.decode(incoming)); err != nil {
			r.Errorf("message %.20q: Envelope differs from call to call: %v", sent[i].ID, err)
		}
		r.ack(incoming)
	}
}

func keepsBodies(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	large, largest := make([]byte, min(1<<20, r.harness.MaxBody)), make([]byte, min(10<<20, r.harness.MaxBody))
	random := rand.NewChaCha8([32]byte{})
	random.Read(large)   //nolint:errcheck // never fails
	random.Read(largest) //nolint:errcheck // never fails
	for _, body := range [][]byte{
		nil, {}, {0}, every, []byte("{\"a\":1}"), []byte("\xff\xfe not UTF-8"), large, largest,
	} {
		envelope := r.envelope(delivery.Normal)
		envelope.Body = body
		r.send(transport, envelope)
		incoming := r.receive(subscription, 1)[0]
		if err := differences(&envelope, r.decode(incoming)); err != nil {
			r.Errorf("body of %d bytes: %v", len(body), err)
		}
		r.ack(incoming)
	}
}

func keepsBatches(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 100)
	if errs := transport.Send(r.patience(), nil); errs != nil {
		r.Errorf("Send of an empty batch: %v, want nil", errs)
	}
	var ledger Ledger
	batch := r.envelopes(1200, delivery.Normal)
	for i := range batch {
		batch[i].Priority = delivery.Priorities()[i%4]
	}
	r.send(transport, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	r.consume(subscription, &ledger)
	r.quiet(subscription)
	r.settled(&ledger, 0)
}

func isolatesTheSender(r *rig) {
	transport := r.open()
	want, sent := r.full(delivery.Normal), r.full(delivery.Normal)
	want.ID = sent.ID
	want.CreatedAt = sent.CreatedAt
	batch := []delivery.Envelope{sent}
	r.send(transport, batch...)
	delayed, canDelay := transport.(delivery.Delayer)
	if canDelay {
		r.accepted(delayed.SendAfter(r.patience(), 10*time.Millisecond, batch))
	}
	for i := range sent.Body {
		sent.Body[i] = 'x'
	}
	clear(sent.Headers)
	sent.Headers["new"] = "header"
	clear(sent.History)
	clear(batch)
	subscription := r.subscribe(transport, 10)
	n := 1
	if canDelay {
		n = 2
	}
	for _, incoming := range r.receive(subscription, n) {
		if err := differences(&want, r.decode(incoming)); err != nil {
			r.Errorf("what the sender did after Send has reached the receiver: %v", err)
		}
		r.ack(incoming)
	}
}

func isolatesReceipts(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	sent := r.full(delivery.Normal)
	r.send(transport, sent)
	first := r.receive(subscription, 1)[0]
	*r.decode(first) = delivery.Envelope{Attempt: 99}
	if err := first.Nack(); err != nil {
		r.Fatalf("Nack: %v", err)
	}
	second := r.receive(subscription, 1)[0]
	if err := differences(&sent, r.decode(second)); err != nil {
		r.Errorf("what one receiver did has reached the next: %v", err)
	}
	r.ack(second)
}

func tellsErrorsPerEnvelope(r *rig) {
	transport := r.open()
	subscription := r.subscribe(transport, 10)
	batch := r.envelopes(3, delivery.Normal)
	batch[1].Priority = delivery.Urgent + 5
	errs := transport.Send(r.patience(), batch)
	if len(errs) != len(batch) {
		r.Fatalf("Send: %d errors for %d envelopes, one of them with an unknown priority", len(errs), len(batch))
	}
	if errs[1] == nil {
		r.Errorf("Send: an unknown priority was accepted")
	}
	var ledger Ledger
	for i, err := range errs {
		if err == nil {
			ledger.Sent(batch[i].ID)
		}
	}
	r.consume(subscription, &ledger)
	r.quiet(subscription)
	if report := ledger.Report(); report.Unconfirmed > 0 {
		r.Errorf("what was not sent has come: %s", report)
	}
	r.settled(&ledger, 0)
}

func malformed(r *rig) {
	if r.harness.SendRaw == nil {
		return
	}
	transport := r.open()
	subscription := r.subscribe(transport, 20)
	raws := [][]byte{{}, []byte("not one of ours"), []byte("{"), {0xff, 0, 0xfe}, bytes.Repeat([]byte("large"), 1<<16)}
	for _, priority := range delivery.Priorities() {
		for _, raw := range raws {
			r.harness.SendRaw(r.T, priority, raw)
		}
		good := r.envelope(priority)
		r.send(transport, good)
		left := raws
		goodCame := false
		for _, incoming := range r.receive(subscription, len(raws)+1) {
			envelope, err := incoming.Envelope()
			if incoming.Priority() != priority {
				r.Errorf("Incoming.Priority is %s, want %s", incoming.Priority(), priority)
			}
			if err == nil && envelope.ID == good.ID {
				goodCame = true
				r.ack(incoming)
				continue
			}
			var body []byte
			switch problem := (*delivery.MalformedError)(nil); {
			case errors.As(err, &problem):
				body = problem.Raw
			case err != nil:
				r.Errorf("Envelope: %v, want a *delivery.MalformedError", err)
			default:
				body = envelope.Body
			}
			i := slices.IndexFunc(left, func(raw []byte) bool { return bytes.Equal(raw, body) })
			if i < 0 {
				r.Errorf("Envelope: %v: %d bytes that are not as they were sent", err, len(body))
			} else {
				left = slices.Delete(slices.Clone(left), i, i+1)
			}
			if _, again := incoming.Envelope(); (err == nil) != (again == nil) {
				r.Errorf("Envelope: %v at first, then %v", err, again)
			}
			r.ack(incoming)
		}
		if !goodCame {
			r.Errorf("the message after the malformed ones did not come")
		}
	}
	r.quiet(subscription)
}
