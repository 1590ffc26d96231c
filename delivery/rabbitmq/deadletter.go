package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// DeadLetter implements delivery.DeadLetterer: it publishes the letters to the
// dead letter exchange, <name>.dlx, confirmed, so that a host without a store
// for them loses nothing. A letter is the message as it was sent, a malformed
// one with its body as it came, and these headers: barid-dead-id,
// barid-dead-reason, barid-dead-error, barid-dead-source, barid-dead-at (Unix
// nanoseconds), and barid-dead-facts.
//
// A queue can't replace what it holds: a letter that is put again is there
// twice, with the same barid-dead-id. A Collector puts it into a store that can.
func (t *Transport) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
	errs := t.ship(ctx, len(letters), func(i int, p *amqp.Publishing) (Route, error) {
		if t.topology.DeadLetter.Exchange == "" {
			return Route{}, fmt.Errorf("%w: the topology has no place for dead letters", delivery.ErrUnsupported)
		}
		t.limits().encodeLetter(&letters[i], p)
		return t.topology.DeadLetter, nil
	})
	return errors.Join(errs...)
}

const (
	maxErrorBytes = 4 << 10 // the text of a dead letter's error
	maxFactsBytes = 4 << 10 // its facts, or else they are left out
	marginBytes   = 2 << 10 // its other headers
)

// encodeLetter never fails: of a letter that is too large for the broker, what
// describes it gives way first, then its headers.
func (l limits) encodeLetter(letter *delivery.DeadLetter, p *amqp.Publishing) {
	e := letter.Envelope
	if letter.Raw != nil {
		e.Body = letter.Raw
	}
	if e.ID == "" {
		e.ID = letter.ID
	}
	for _, field := range []*string{&e.ID, &e.Type, &e.ContentType} {
		*field = cut(*field, maxShortBytes)
	}
	for _, field := range []*string{&e.Recipient, &e.IdempotencyKey, &e.Subject} {
		*field = cut(*field, maxErrorBytes)
	}
	for name := range e.Headers {
		if len(name) > maxShortBytes {
			e.Headers = nil // no message of ours, then
			break
		}
	}
	room := l.headers - marginBytes - maxErrorBytes - maxFactsBytes
	fill(&e, time.Time{}, p)
	size := headersBytes(p.Headers)
	if size > room {
		clear(p.Headers)
		e.Headers = nil
		fill(&e, time.Time{}, p)
		size = headersBytes(p.Headers)
	}
	putHistory(p.Headers, e.History, room-size) //nolint:errcheck // a history that can't be encoded is left out
	putString(p.Headers, headerDeadID, cut(letter.ID, maxShortBytes))
	putString(p.Headers, headerDeadReason, cut(string(letter.Reason), maxShortBytes))
	putString(p.Headers, headerDeadError, cut(letter.Error, maxErrorBytes))
	putString(p.Headers, headerDeadSource, cut(letter.Source, maxShortBytes))
	putTime(p.Headers, headerDeadAt, letter.At)
	var facts []byte
	for name, value := range letter.Facts {
		facts = appendString(appendString(facts, name), value)
	}
	if len(facts) <= maxFactsBytes {
		putString(p.Headers, headerDeadFacts, string(facts))
	}
}

// decodeLetter is the reverse of encodeLetter. It says no for what encodeLetter
// did not make. envelope is what was read of the message, with a fault or not.
func (l limits) decodeLetter(d *amqp.Delivery, envelope *delivery.Envelope) (letter delivery.DeadLetter, ok bool) {
	text := func(name string) string {
		text, _ := d.Headers[name].(string)
		return text
	}
	letter = delivery.DeadLetter{
		ID:       text(headerDeadID),
		Envelope: *envelope,
		Reason:   delivery.Reason(text(headerDeadReason)),
		Error:    text(headerDeadError),
		Source:   text(headerDeadSource),
	}
	if letter.ID == "" || letter.Reason == "" {
		return letter, false
	}
	if nanos, ok := integer(d.Headers[headerDeadAt]); ok {
		letter.At = time.Unix(0, nanos).UTC()
	}
	for list := text(headerDeadFacts); list != ""; {
		name, rest, found := cutString(list)
		value, rest, also := cutString(rest)
		if !found || !also {
			break
		}
		if letter.Facts == nil {
			letter.Facts = make(map[string]string)
		}
		letter.Facts[name] = value
		list = rest
	}
	if letter.Reason == delivery.ReasonMalformed {
		letter.Raw, letter.Envelope.Body = d.Body, nil
		if letter.Envelope.ID == letter.ID {
			letter.Envelope.ID = "" // it had none
		}
	}
	return letter, true
}

// cut shortens a text that is over the limit.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}
