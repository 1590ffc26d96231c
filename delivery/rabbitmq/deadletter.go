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
// barid-dead-reason, barid-dead-error, barid-dead-source, and barid-dead-at
// (Unix nanoseconds).
//
// A queue can't replace what it holds: a letter that is put again is there
// twice, with the same barid-dead-id.
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

// maxErrorBytes bounds the text of a dead letter's error.
const maxErrorBytes = 4 << 10

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
	room := l.headers - marginBytes - maxErrorBytes
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
}

// marginBytes is for the headers of a dead letter but its error.
const marginBytes = 2 << 10

// cut shortens a text that is over the limit.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}
