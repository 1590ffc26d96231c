package rabbitmq

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// The headers of ours. Integers are 64 bits wide, times are Unix nanoseconds; a
// header whose field has its zero value is left out.
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
	headerHistory    = "barid-history" // JSON array
	headerReserved   = "barid-headers" // the host's headers with reserved names
	headerDue        = "barid-due"     // not to be seen before
	headerDeadID     = "barid-dead-id" // of a dead letter, as the rest below
	headerDeadReason = "barid-dead-reason"
	headerDeadError  = "barid-dead-error"
	headerDeadSource = "barid-dead-source"
	headerDeadAt     = "barid-dead-at"
	headerDeadFacts  = "barid-dead-facts"
)

// The size of all headers is bounded by the frame that holds them: RabbitMQ's
// frame_max, 128 KiB by default.
const (
	maxHeaderBytes = 120 << 10
	// frameBytes is what else is in that frame: properties of at most 255 bytes.
	frameBytes = 4 << 10
	// stateBytes is kept for what the pipeline adds between two receipts, so that
	// a message that was taken once can always be sent again.
	stateBytes = 1 << 10
)

// reserved says whether the broker or this package gives headers of that name a
// meaning of their own. CC and BCC would send copies elsewhere ("Sender-selected
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

// limits are the sizes that the broker takes.
type limits struct {
	headers int
	body    int
}

// encode puts an envelope into p, whose Headers is an empty table. It fails with
// delivery.ErrInvalid or ErrTooLarge where the message could not be read back or
// would make the broker close the connection. p shares the envelope's body.
func (l limits) encode(e *delivery.Envelope, due time.Time, p *amqp.Publishing) error {
	if err := e.Validate(); err != nil {
		return err
	}
	if len(e.Body) > l.body {
		return &delivery.TooLargeError{Field: "Body", Size: len(e.Body), Limit: l.body}
	}
	if e.Attempt < 0 || e.Generation < 0 {
		return &delivery.InvalidError{Field: "Attempt or Generation", Problem: "is negative"}
	}
	fill(e, due, p)
	size := headersBytes(p.Headers)
	if limit := l.headers - stateBytes; size > limit {
		return &delivery.TooLargeError{Field: "Headers", Size: size, Limit: limit}
	}
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
		p.Timestamp = e.CreatedAt // whole seconds, for those who look with other tools
	}
	p.Body = e.Body
}

// putHistory adds the last failures, as many as there is room for.
func putHistory(headers amqp.Table, history []delivery.Failure, room int) error {
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

// messageBytes is the size of a header on the wire (AMQP 0-9-1, 4.2.5.5), or 0
// for one that is not a part of the message itself.
func messageBytes(name string, value any) int {
	switch name {
	case headerAttempt, headerGeneration, headerHistory, headerNotBefore, headerDue,
		headerDeadID, headerDeadReason, headerDeadError, headerDeadSource, headerDeadAt, headerDeadFacts:
		return 0
	}
	const lengthAndType = 2
	if text, ok := value.(string); ok {
		return len(name) + lengthAndType + 4 + len(text)
	}
	return len(name) + lengthAndType + 8
}

func headersBytes(headers amqp.Table) int {
	size := 0
	for name, value := range headers {
		size += messageBytes(name, value)
	}
	return size
}

// appendString appends text with its length in front: "5:hello". Unlike a
// header's name, what is written so may have any length and any bytes.
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

// decode reads what the broker delivered. Everything that did not come from
// encode, or could not be sent again by it, is a *delivery.MalformedError.
// Headers that the broker adds (x-death and its like) are ignored, whatever
// their type, and so are headers of ours of a later version.
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
	if e.CreatedAt.IsZero() && validTime(d.Timestamp) {
		e.CreatedAt = d.Timestamp.UTC()
	}
	switch {
	case r.problem != "":
	case len(e.Body) > l.body:
		r.problem = fmt.Sprintf("body has %d bytes, at most %d are allowed", len(e.Body), l.body)
	case r.size > l.headers-stateBytes:
		r.problem = fmt.Sprintf("headers have %d bytes, at most %d are allowed", r.size, l.headers-stateBytes)
	case e.Attempt < 0 || e.Generation < 0:
		r.problem = "attempt or generation is negative"
	default:
		if err := e.Validate(); err != nil {
			r.problem = err.Error()
		}
	}
	if r.problem != "" {
		return nil, &delivery.MalformedError{Problem: r.problem, Raw: d.Body, Envelope: *e}
	}
	return e, nil
}

// dueOf is when a delivery may be seen, or the zero time.
func dueOf(d *amqp.Delivery) time.Time {
	if nanos, ok := integer(d.Headers[headerDue]); ok {
		return time.Unix(0, nanos)
	}
	return time.Time{}
}

// headerReader fills an envelope from headers and remembers the first problem.
type headerReader struct {
	envelope *delivery.Envelope
	size     int // of what belongs to the message
	problem  string
}

func (r *headerReader) header(name string, value any) {
	e := r.envelope
	if !reserved(name) || hasPrefixFold(name, ownPrefix) {
		r.size += messageBytes(name, value)
	}
	switch name {
	case headerRecipient:
		r.string(name, value, &e.Recipient)
	case headerKey:
		r.string(name, value, &e.IdempotencyKey)
	case headerSubject:
		r.string(name, value, &e.Subject)
	case headerPriority:
		var priority int
		r.int(name, value, &priority)
		if e.Priority = delivery.Priority(priority); int(e.Priority) != priority {
			r.fault("header %s is out of range", name)
		}
	case headerAttempt:
		r.int(name, value, &e.Attempt)
	case headerGeneration:
		r.int(name, value, &e.Generation)
	case headerCreated:
		r.time(name, value, &e.CreatedAt)
	case headerNotBefore:
		r.time(name, value, &e.NotBefore)
	case headerExpires:
		r.time(name, value, &e.ExpiresAt)
	case headerRequireAck:
		set, ok := value.(bool)
		if e.RequireAck = set; !ok {
			r.fault("header %s is a %T, want a boolean", name, value)
		}
	case headerHistory:
		var text string
		r.string(name, value, &text)
		if err := json.Unmarshal([]byte(text), &e.History); err != nil {
			e.History = nil
			r.fault("header %s is no list of failures", name)
		}
		e.History = e.History[max(0, len(e.History)-delivery.MaxHistory):]
	case headerReserved:
		var text string
		r.string(name, value, &text)
		r.reserved(text)
	default:
		if reserved(name) {
			return
		}
		text, ok := value.(string)
		if !ok {
			r.fault("header %.64q is a %T, want a string", name, value)
			return
		}
		r.set(name, text)
	}
}

func (r *headerReader) reserved(list string) {
	for list != "" {
		name, rest, ok := cutString(list)
		value, rest, also := cutString(rest)
		if !ok || !also {
			r.fault("header %s can't be read", headerReserved)
			return
		}
		r.set(name, value)
		list = rest
	}
}

func (r *headerReader) set(name, value string) {
	if r.envelope.Headers == nil {
		r.envelope.Headers = make(map[string]string)
	}
	r.envelope.Headers[name] = value
}

func (r *headerReader) fault(format string, args ...any) {
	if r.problem == "" {
		r.problem = fmt.Sprintf(format, args...)
	}
}

func (r *headerReader) string(name string, value any, field *string) {
	text, ok := value.(string)
	if *field = text; !ok {
		r.fault("header %s is a %T, want a string", name, value)
	}
}

func (r *headerReader) int(name string, value any, field *int) {
	number, ok := integer(value)
	if *field = int(number); !ok || int64(*field) != number {
		r.fault("header %s is a %T, want an integer", name, value)
	}
}

func (r *headerReader) time(name string, value any, field *time.Time) {
	if number, ok := integer(value); ok {
		*field = time.Unix(0, number).UTC()
	} else {
		r.fault("header %s is a %T, want an integer", name, value)
	}
}

// validTime says whether a time that others set can be sent again.
func validTime(t time.Time) bool { return t.Unix() > 0 && t.Unix() < math.MaxInt64/int64(time.Second) }

// integer reads an integer of any of AMQP's widths.
func integer(value any) (int64, bool) {
	switch number := value.(type) {
	case int64:
		return number, true
	case int32:
		return int64(number), true
	case uint32:
		return int64(number), true
	case int16:
		return int64(number), true
	case uint16:
		return int64(number), true
	case int8:
		return int64(number), true
	case byte:
		return int64(number), true
	case int:
		return int64(number), true
	}
	return 0, false
}
