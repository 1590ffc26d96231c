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

// envelopeDifferences names the fields of an envelope that are not as they were
// sent. Nil and empty are the same, because a wire format need not tell them
// apart. Times have to be the same instant, to the nanosecond.
func envelopeDifferences(want, got *delivery.Envelope) error {
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
	if want.Crashes != got.Crashes {
		differ("Crashes", want.Crashes, got.Crashes)
	}
	if !slices.EqualFunc(want.History, got.History, func(a, b delivery.Failure) bool {
		return a.At.Equal(b.At) && a.Attempt == b.Attempt && a.Error == b.Error
	}) {
		differ("History", want.History, got.History)
	}
	return errors.Join(errs...)
}

// fullEnvelope is an envelope with a value in every field.
func (t *transportSubtest) fullEnvelope(priority delivery.Priority) delivery.Envelope {
	at := time.Date(2026, 2, 28, 23, 59, 59, 123456789, time.UTC)
	envelope := t.envelope(priority)
	envelope.IdempotencyKey = "order/1 ünïcödé ٣"
	envelope.Recipient = "+966500000001, \"Ω\"\n"
	envelope.Subject = "موضوع \U0001F4EC " + strings.Repeat("s", 900)
	envelope.Type = "order.created"
	envelope.ContentType = "application/json; charset=utf-8"
	envelope.Headers = map[string]string{"empty": "", "Case": "kept", "case": "too", "ключ": "значение\x00\t", "x-death": "a header like any other"}
	envelope.CreatedAt, envelope.NotBefore, envelope.ExpiresAt = at, at.Add(time.Nanosecond), at.Add(100*365*24*time.Hour)
	envelope.RequireAck = true
	envelope.Attempt, envelope.Generation, envelope.Crashes = 7, 3, 2
	for i := range delivery.MaxHistory {
		envelope.History = append(envelope.History, delivery.Failure{
			At: at.Add(time.Duration(i)), Attempt: i, Error: "no answer; \"quoted\", ünïcödé " + strings.Repeat("e", 400),
		})
	}
	return envelope
}

func keepsEveryField(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 100)
	minimal := delivery.Envelope{Message: delivery.Message{ID: "minimal", Recipient: "r"}}
	manyHeaders := t.envelope(delivery.Normal)
	manyHeaders.Headers = map[string]string{}
	for i := range 200 {
		manyHeaders.Headers[fmt.Sprintf("header-%03d", i)] = strings.Repeat("v", i)
	}
	longest := t.envelope(delivery.Normal)
	longest.ID = strings.Repeat("i", delivery.MaxIDBytes)
	longest.Type, longest.ContentType = strings.Repeat("t", delivery.MaxIDBytes), strings.Repeat("c", delivery.MaxIDBytes)
	longest.IdempotencyKey = strings.Repeat("k", delivery.MaxAttributeBytes)
	longest.Recipient, longest.Subject = strings.Repeat("r", delivery.MaxAttributeBytes), strings.Repeat("s", delivery.MaxAttributeBytes)
	longest.Headers = map[string]string{strings.Repeat("h", delivery.MaxIDBytes): strings.Repeat("v", delivery.MaxHeaderBytes-delivery.MaxIDBytes)}
	sent := []delivery.Envelope{
		minimal, manyHeaders, longest,
		t.fullEnvelope(delivery.Urgent), t.fullEnvelope(delivery.High), t.fullEnvelope(delivery.Normal), t.fullEnvelope(delivery.Low),
	}
	t.send(transport, sent...)
	got := map[string]delivery.Incoming{}
	for _, incoming := range t.receive(subscription, len(sent)) {
		got[t.decode(incoming).ID] = incoming
	}
	for i := range sent {
		incoming, ok := got[sent[i].ID]
		if !ok {
			t.Errorf("message %.20q did not come", sent[i].ID)
			continue
		}
		if incoming.Priority() != sent[i].Priority {
			t.Errorf("message %.20q: Incoming.Priority is %s, want %s", sent[i].ID, incoming.Priority(), sent[i].Priority)
		}
		if err := envelopeDifferences(&sent[i], t.decode(incoming)); err != nil {
			t.Errorf("message %.20q: %v", sent[i].ID, err)
		}
		if err := envelopeDifferences(t.decode(incoming), t.decode(incoming)); err != nil {
			t.Errorf("message %.20q: Envelope differs from call to call: %v", sent[i].ID, err)
		}
		t.ack(incoming)
	}
}

func keepsBodies(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	large, largest := make([]byte, min(1<<20, t.harness.MaxBody)), make([]byte, min(10<<20, t.harness.MaxBody))
	random := rand.NewChaCha8([32]byte{})
	random.Read(large)   //nolint:errcheck // never fails
	random.Read(largest) //nolint:errcheck // never fails
	for _, body := range [][]byte{
		nil, {}, {0}, every, []byte("{\"a\":1}"), []byte("\xff\xfe not UTF-8"), large, largest,
	} {
		envelope := t.envelope(delivery.Normal)
		envelope.Body = body
		t.send(transport, envelope)
		incoming := t.receive(subscription, 1)[0]
		if err := envelopeDifferences(&envelope, t.decode(incoming)); err != nil {
			t.Errorf("body of %d bytes: %v", len(body), err)
		}
		t.ack(incoming)
	}
}

func keepsBatches(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 100)
	if errs := transport.Send(t.boundedContext(), nil); errs != nil {
		t.Errorf("Send of an empty batch: %v, want nil", errs)
	}
	var ledger Ledger
	batch := t.envelopes(1200, delivery.Normal)
	for i := range batch {
		batch[i].Priority = delivery.Priorities()[i%4]
	}
	t.send(transport, batch...)
	for i := range batch {
		ledger.Sent(batch[i].ID)
	}
	t.consume(subscription, &ledger)
	t.checkQuiet(subscription)
	t.checkLedger(&ledger, 0)
}

// isolatesTheSender changes what was sent after Send has returned.
func isolatesTheSender(t *transportSubtest) {
	transport := t.open()
	want, sent := t.fullEnvelope(delivery.Normal), t.fullEnvelope(delivery.Normal)
	want.ID = sent.ID
	want.CreatedAt = sent.CreatedAt
	batch := []delivery.Envelope{sent}
	t.send(transport, batch...)
	delayed, canDelay := transport.(delivery.Delayer)
	if canDelay {
		t.checkAccepted(delayed.SendAfter(t.boundedContext(), 10*time.Millisecond, batch))
	}
	for i := range sent.Body {
		sent.Body[i] = 'x'
	}
	clear(sent.Headers)
	sent.Headers["new"] = "header"
	clear(sent.History)
	clear(batch)
	subscription := t.subscribe(transport, 10)
	n := 1
	if canDelay {
		n = 2
	}
	for _, incoming := range t.receive(subscription, n) {
		if err := envelopeDifferences(&want, t.decode(incoming)); err != nil {
			t.Errorf("what the sender did after Send has reached the receiver: %v", err)
		}
		t.ack(incoming)
	}
}

// isolatesReceipts changes the envelope of one receipt, and looks at the next.
func isolatesReceipts(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	sent := t.fullEnvelope(delivery.Normal)
	t.send(transport, sent)
	first := t.receive(subscription, 1)[0]
	*t.decode(first) = delivery.Envelope{Attempt: 99}
	if err := first.Nack(); err != nil {
		t.Fatalf("Nack: %v", err)
	}
	second := t.receive(subscription, 1)[0]
	if err := envelopeDifferences(&sent, t.decode(second)); err != nil {
		t.Errorf("what one receiver did has reached the next: %v", err)
	}
	t.ack(second)
}

// tellsErrorsPerEnvelope sends a batch of which one envelope is invalid.
func tellsErrorsPerEnvelope(t *transportSubtest) {
	transport := t.open()
	subscription := t.subscribe(transport, 10)
	batch := t.envelopes(3, delivery.Normal)
	batch[1].Priority = delivery.Urgent + 5
	errs := transport.Send(t.boundedContext(), batch)
	if len(errs) != len(batch) {
		t.Fatalf("Send: %d errors for %d envelopes, one of them with an unknown priority", len(errs), len(batch))
	}
	if errs[1] == nil {
		t.Errorf("Send: an unknown priority was accepted")
	}
	var ledger Ledger
	for i, err := range errs {
		if err == nil {
			ledger.Sent(batch[i].ID)
		}
	}
	t.consume(subscription, &ledger)
	t.checkQuiet(subscription)
	if report := ledger.Report(); report.Unconfirmed > 0 {
		t.Errorf("what was not sent has come: %s", report)
	}
	t.checkLedger(&ledger, 0)
}

// malformed receives messages that no transport of barid has sent.
func malformed(t *transportSubtest) {
	if t.harness.SendRaw == nil {
		return
	}
	transport := t.open()
	subscription := t.subscribe(transport, 20)
	raws := [][]byte{{}, []byte("not one of ours"), []byte("{"), {0xff, 0, 0xfe}, bytes.Repeat([]byte("large"), 1<<16)}
	for _, priority := range delivery.Priorities() {
		for _, raw := range raws {
			t.harness.SendRaw(t.T, priority, raw)
		}
		good := t.envelope(priority)
		t.send(transport, good)
		left := raws
		goodCame := false
		for _, incoming := range t.receive(subscription, len(raws)+1) {
			envelope, err := incoming.Envelope()
			if incoming.Priority() != priority {
				t.Errorf("Incoming.Priority is %s, want %s", incoming.Priority(), priority)
			}
			if err == nil && envelope.ID == good.ID {
				goodCame = true
				t.ack(incoming)
				continue
			}
			var body []byte
			switch problem := (*delivery.MalformedError)(nil); {
			case errors.As(err, &problem):
				body = problem.Raw
			case err != nil:
				t.Errorf("Envelope: %v, want a *delivery.MalformedError", err)
			default:
				body = envelope.Body
			}
			i := slices.IndexFunc(left, func(raw []byte) bool { return bytes.Equal(raw, body) })
			if i < 0 {
				t.Errorf("Envelope: %v: %d bytes that are not as they were sent", err, len(body))
			} else {
				left = slices.Delete(slices.Clone(left), i, i+1)
			}
			if _, again := incoming.Envelope(); (err == nil) != (again == nil) {
				t.Errorf("Envelope: %v at first, then %v", err, again)
			}
			t.ack(incoming)
		}
		if !goodCame {
			t.Errorf("the message after the malformed ones did not come")
		}
	}
	t.checkQuiet(subscription)
}
