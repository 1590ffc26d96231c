package rabbitmq

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// headerReader reads headers into an envelope, and keeps the first problem.
type headerReader struct {
	envelope *delivery.Envelope
	problem  string
}

func (r *headerReader) header(name string, value any) {
	e := r.envelope
	switch name {
	case headerRecipient:
		r.string(name, value, &e.Recipient)
	case headerKey:
		r.string(name, value, &e.IdempotencyKey)
	case headerSubject:
		r.string(name, value, &e.Subject)
	case headerPriority:
		r.priority(name, value)
	case headerAttempt:
		r.int(name, value, &e.Attempt)
	case headerGeneration:
		r.int(name, value, &e.Generation)
	case headerCrashes:
		r.int(name, value, &e.Crashes)
	case headerCreated:
		r.time(name, value, &e.CreatedAt)
	case headerNotBefore:
		r.time(name, value, &e.NotBefore)
	case headerExpires:
		r.time(name, value, &e.ExpiresAt)
	case headerRequireAck:
		r.bool(name, value, &e.RequireAck)
	case headerHistory:
		r.history(name, value)
	case headerReserved:
		r.reserved(name, value)
	default:
		if !reserved(name) {
			r.host(name, value)
		}
	}
}

// host reads a header of the host's.
func (r *headerReader) host(name string, value any) {
	text, ok := value.(string)
	if !ok {
		r.fault("header %.64q is a %T, want a string", name, value)
		return
	}
	r.set(name, text)
}

// reserved reads the headers of the host's whose names are reserved.
func (r *headerReader) reserved(name string, value any) {
	var list string
	r.string(name, value, &list)
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

func (r *headerReader) priority(name string, value any) {
	var priority int
	r.int(name, value, &priority)
	e := r.envelope
	if e.Priority = delivery.Priority(priority); int(e.Priority) != priority {
		r.fault("header %s is out of range", name)
	}
}

func (r *headerReader) history(name string, value any) {
	var text string
	r.string(name, value, &text)
	e := r.envelope
	if err := json.Unmarshal([]byte(text), &e.History); err != nil {
		e.History = nil
		r.fault("header %s is no list of failures", name)
	}
	e.History = e.History[max(0, len(e.History)-delivery.MaxHistory):]
	for i := range e.History {
		f := &e.History[i]
		if !validFailure(f) {
			r.fault("header %s has a failure of attempt %d in the year %d", name, f.Attempt, f.At.UTC().Year())
		}
		f.At, f.Error = f.At.UTC(), cut(f.Error, maxFailureBytes)
	}
}

func (r *headerReader) bool(name string, value any, field *bool) {
	set, ok := value.(bool)
	if *field = set; !ok {
		r.fault("header %s is a %T, want a boolean", name, value)
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
