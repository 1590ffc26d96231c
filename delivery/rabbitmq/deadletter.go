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

// DeadLetter implements delivery.DeadLetterer. It publishes the letters to the
// dead-letter exchange, <name>.dlx, and waits for the confirms, so that a host
// without a store for dead letters loses nothing. A letter is the message as it
// was sent, or with the body as it came if it is malformed, and the headers
// barid-dead-id, barid-dead-reason, barid-dead-error, barid-dead-source,
// barid-dead-at (Unix nanoseconds) and barid-dead-facts.
//
// A queue can't replace what it holds, so a letter that is published again is in
// it twice, with the same barid-dead-id. A Collector moves letters into a store,
// which keeps one.
func (t *Transport) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
	errs := t.send(ctx, len(letters), func(i int, p *amqp.Publishing) (Route, error) {
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
	maxFactsBytes = 4 << 10 // its facts, which are left out if they are larger
	marginBytes   = 2 << 10 // its other headers
)

// encodeLetter writes a letter into p. It never fails: of a letter that is too
// large for the broker, it cuts the texts that describe it, and then leaves its
// headers out.
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
			e.Headers = nil // then it is no message of ours
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

// decodeLetter reads what encodeLetter wrote, and says no to anything else.
// envelope is what could be read of the message.
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
