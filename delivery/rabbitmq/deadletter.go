package rabbitmq

import (
	"context"
	"errors"
	"fmt"
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
)

// encodeLetter writes a letter into p. It never fails: of a letter that is too
// large for the broker, it cuts the texts that describe it. Only of what encode
// would not have taken it leaves the headers out.
func (l limits) encodeLetter(letter *delivery.DeadLetter, p *amqp.Publishing) {
	e := letter.Envelope
	if letter.Raw != nil {
		e.Body = letter.Raw
	}
	if e.ID == "" {
		e.ID = letter.ID
	}
	restrict(&e)
	if messageBytes(&e) > l.headers-stateBytes {
		e.Headers = nil
	}
	fill(&e, time.Time{}, p)
	putString(p.Headers, headerDeadID, cut(letter.ID, maxShortBytes))
	putString(p.Headers, headerDeadReason, cut(string(letter.Reason), maxShortBytes))
	putString(p.Headers, headerDeadSource, cut(letter.Source, maxShortBytes))
	if validTime(letter.At) {
		putTime(p.Headers, headerDeadAt, letter.At)
	}
	room := max(0, l.headers-stateBytes-messageBytes(&e))
	text := cut(letter.Error, min(maxErrorBytes, room/2))
	putString(p.Headers, headerDeadError, text)
	room -= len(text)
	var facts []byte
	for name, value := range letter.Facts {
		facts = appendString(appendString(facts, name), value)
	}
	if len(facts) <= min(maxFactsBytes, room) {
		putString(p.Headers, headerDeadFacts, string(facts))
		room -= len(facts)
	}
	putHistory(p.Headers, e.History, room) //nolint:errcheck // a history that can't be encoded is left out
}

// decodeLetter reads what encodeLetter wrote, and says no to anything else. What the
// broker dead-lettered is no letter of ours, whatever it says of itself: with the
// headers of a letter, any message that anybody published would replace the letter
// that it names. The broker writes x-death into all that it dead-letters, and
// encodeLetter never does. envelope is what could be read of the message.
func (l limits) decodeLetter(d *amqp.Delivery, envelope *delivery.Envelope) (letter delivery.DeadLetter, ok bool) {
	text := func(name string) string {
		text, _ := d.Headers[name].(string)
		return text
	}
	letter = delivery.DeadLetter{
		ID:       text(headerDeadID),
		Envelope: *envelope,
		Reason:   delivery.Reason(text(headerDeadReason)),
		Error:    cut(text(headerDeadError), maxErrorBytes),
		Source:   cut(text(headerDeadSource), maxShortBytes),
	}
	if _, found := d.Headers["x-death"]; found || letter.ID == "" || letter.Reason == "" || max(len(letter.ID), len(letter.Reason)) > maxShortBytes {
		return letter, false
	}
	if nanos, ok := integer(d.Headers[headerDeadAt]); ok {
		letter.At = time.Unix(0, nanos).UTC()
	}
	list := text(headerDeadFacts)
	for list != "" && len(list) <= maxFactsBytes {
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
