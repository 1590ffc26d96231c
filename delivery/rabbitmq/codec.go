package rabbitmq

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// The headers of our messages. Integers are 64 bits wide, times are Unix
// nanoseconds. A field with its zero value has no header.
const (
	ownPrefix        = "barid-"
	headerRecipient  = "barid-recipient"
	headerKey        = "barid-key"
	headerSubject    = "barid-subject"
	headerPriority   = "barid-priority"
	headerCreated    = "barid-created"
	headerNotBefore  = "barid-not-before"
	headerExpires    = "barid-expires"
	headerRequireAck = "barid-require-ack"
	headerAttempt    = "barid-attempt"
	headerGeneration = "barid-generation"
	headerCrashes    = "barid-crashes"
	headerHistory    = "barid-history" // JSON array
	headerReserved   = "barid-headers" // the host's headers with reserved names
	headerDue        = "barid-due"     // not to be received before
	headerDeadID     = "barid-dead-id" // this and the rest: of dead letters only
	headerDeadReason = "barid-dead-reason"
	headerDeadError  = "barid-dead-error"
	headerDeadSource = "barid-dead-source"
	headerDeadAt     = "barid-dead-at"
	headerDeadFacts  = "barid-dead-facts"
)

// headerDeliveryCount is the broker's, of messages in quorum queues.
const headerDeliveryCount = "x-delivery-count"

// reserved says whether headers of that name mean something to the broker or to
// this package. CC and BCC would send copies elsewhere (RabbitMQ: "Sender-selected
// Distribution").
func reserved(name string) bool {
	if name == "CC" || name == "BCC" {
		return true
	}
	return hasPrefixFold(name, "x-") || hasPrefixFold(name, ownPrefix)
}

func hasPrefixFold(text, prefix string) bool {
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

// encode writes an envelope into p, whose Headers must be an empty table. It fails
// with delivery.ErrInvalid if the message could not be read back, and with
// delivery.ErrTooLarge if the broker would close the connection for it. p shares
// the envelope's body.
func (l limits) encode(e *delivery.Envelope, due time.Time, p *amqp.Publishing) error {
	if err := e.Validate(); err != nil {
		return err
	}
	if len(e.Body) > l.body {
		return &delivery.TooLargeError{Field: "Body", Size: len(e.Body), Limit: l.body}
	}
	if least, most := min(e.Attempt, e.Generation, e.Crashes), max(e.Attempt, e.Generation, e.Crashes); least < 0 || most > maxCount {
		problem := fmt.Sprintf("are %d, %d and %d, want 0 to %d", e.Attempt, e.Generation, e.Crashes, maxCount)
		return &delivery.InvalidError{Field: "Attempt, Generation and Crashes", Problem: problem}
	}
	size := messageBytes(e)
	if limit := l.headers - stateBytes; size > limit {
		return &delivery.TooLargeError{Field: "Headers", Size: size, Limit: limit}
	}
	fill(e, due, p)
	return putHistory(p.Headers, e.History, l.headers-size-stateBytes/2)
}

// fill writes every field of e but its history into p.
func fill(e *delivery.Envelope, due time.Time, p *amqp.Publishing) {
	headers := p.Headers
	putString(headers, headerRecipient, e.Recipient)
	putString(headers, headerKey, e.IdempotencyKey)
	putString(headers, headerSubject, e.Subject)
	putInt(headers, headerPriority, int64(e.Priority))
	putInt(headers, headerAttempt, int64(e.Attempt))
	putInt(headers, headerGeneration, int64(e.Generation))
	putInt(headers, headerCrashes, int64(e.Crashes))
	putTime(headers, headerCreated, e.CreatedAt)
	putTime(headers, headerNotBefore, e.NotBefore)
	putTime(headers, headerExpires, e.ExpiresAt)
	putTime(headers, headerDue, due)
	if e.RequireAck {
		headers[headerRequireAck] = true
	}
	var escaped []byte
	for name, value := range e.Headers {
		if reserved(name) {
			escaped = appendString(appendString(escaped, name), value)
		} else {
			headers[name] = value
		}
	}
	if escaped != nil {
		headers[headerReserved] = string(escaped)
	}
	p.MessageId = e.ID
	p.Type = e.Type
	p.ContentType = e.ContentType
	p.DeliveryMode = amqp.Persistent
	p.Timestamp = time.Time{}
	if e.CreatedAt.Unix() > 0 {
		p.Timestamp = e.CreatedAt // whole seconds, for other tools to show
	}
	p.Body = e.Body
}

// putHistory adds the last failures, as many as fit into room bytes.
func putHistory(headers amqp.Table, history []delivery.Failure, room int) error {
	for i := range history {
		if f := &history[i]; !validFailure(f) {
			problem := fmt.Sprintf("has a failure of attempt %d in the year %d", f.Attempt, f.At.Year())
			return &delivery.InvalidError{Field: "History", Problem: problem}
		}
	}
	for ; len(history) > 0; history = history[1:] {
		text, err := json.Marshal(history)
		if err != nil {
			return &delivery.InvalidError{Field: "History", Problem: "can't be encoded: " + err.Error()}
		}
		if len(text) <= room {
			headers[headerHistory] = string(text)
			break
		}
	}
	return nil
}

func putString(table amqp.Table, name, value string) {
	if value != "" {
		table[name] = value
	}
}

func putInt(table amqp.Table, name string, value int64) {
	if value != 0 {
		table[name] = value
	}
}

func putTime(table amqp.Table, name string, value time.Time) {
	if !value.IsZero() {
		table[name] = value.UnixNano()
	}
}

// appendString appends text with its length in front: "5:hello". Unlike the name
// of a header, such a text may have any length and any bytes.
func appendString(list []byte, text string) []byte {
	list = strconv.AppendInt(list, int64(len(text)), 10)
	list = append(list, ':')
	return append(list, text...)
}

// cutString reads what appendString wrote.
func cutString(list string) (text, rest string, ok bool) {
	length, rest, found := strings.Cut(list, ":")
	size, err := strconv.Atoi(length)
	if !found || err != nil || size < 0 || size > len(rest) {
		return "", "", false
	}
	return rest[:size], rest[size:], true
}

// decode reads what the broker delivered. What encode could not have written, or
// could not write again, is a *delivery.MalformedError, whose envelope any store of
// dead letters can hold. Headers of the broker
// (x-death and others) are ignored, whatever their type, and so are those of a
// later version of this package.
func (l limits) decode(d *amqp.Delivery) (*delivery.Envelope, error) {
	e := &delivery.Envelope{}
	e.ID, e.Type, e.ContentType = d.MessageId, d.Type, d.ContentType
	if len(d.Body) > 0 {
		e.Body = d.Body
	}
	r := headerReader{envelope: e}
	for name, value := range d.Headers {
		r.header(name, value)
	}
	if e.CreatedAt.IsZero() && validTime(d.Timestamp) && d.Timestamp.Unix() > 0 {
		e.CreatedAt = d.Timestamp.UTC()
	}
	switch {
	case r.problem != "":
	case len(e.Body) > l.body:
		r.problem = fmt.Sprintf("body has %d bytes, at most %d are allowed", len(e.Body), l.body)
	case messageBytes(e) > l.headers-stateBytes:
		r.problem = fmt.Sprintf("headers have %d bytes, at most %d are allowed", messageBytes(e), l.headers-stateBytes)
	case !validCount(e.Attempt) || !validCount(e.Generation) || !validCount(e.Crashes):
		r.problem = fmt.Sprintf("attempt is %d, generation %d and crashes %d, want 0 to %d", e.Attempt, e.Generation, e.Crashes, maxCount-1)
	default:
		if err := e.Validate(); err != nil {
			r.problem = cut(err.Error(), maxErrorBytes)
		}
	}
	if r.problem != "" {
		restrict(e)
		return nil, &delivery.MalformedError{Problem: r.problem, Raw: d.Body, Envelope: *e}
	}
	return e, nil
}

// dueOf is when a delivery may be received, or the zero time.
func dueOf(d *amqp.Delivery) time.Time {
	if nanos, ok := integer(d.Headers[headerDue]); ok {
		return time.Unix(0, nanos)
	}
	return time.Time{}
}
