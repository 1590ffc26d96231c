package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/google/uuid"
)

// The bounds of a Message, in bytes. IDs, types and header keys travel as AMQP
// short strings, which end at 255 bytes; the rest keeps a whole set of headers
// inside one AMQP frame (128 KiB).
const (
	MaxIDBytes        = 255      // ID, Type, ContentType, each header key
	MaxAttributeBytes = 1024     // IdempotencyKey, Recipient, Subject
	MaxHeaderBytes    = 64 << 10 // all header keys and values together
	DefaultMaxBody    = 16 << 20 // PublisherConfig.MaxBodyBytes
)

// Message is what the caller gives to a Publisher and what a Handler gets.
// It is a value: nothing in the library changes the caller's copy, and a
// Handler must not change Body or Headers, which copies share.
type Message struct {
	// ID names the message everywhere: in stores, dead letters and logs.
	// Publish fills an empty ID with a new UUIDv7. Set it, to a NewID or one of
	// your own, to know it beforehand and to be able to publish again safely.
	ID string `json:"id"`
	// IdempotencyKey is what duplicates have in common; empty means ID.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// Recipient is whom the message is for. Ordered consumers keep the order of
	// each recipient's messages. Required.
	Recipient string `json:"recipient"`
	// Subject is free text, for instance an e-mail's subject.
	Subject string `json:"subject,omitempty"`
	// Type names what Body is, for instance "order.created".
	Type string `json:"type,omitempty"`
	// Body is opaque, and may be empty.
	Body []byte `json:"body,omitempty"`
	// ContentType is the media type of Body.
	ContentType string `json:"content_type,omitempty"`
	// Headers travel with the message unchanged.
	Headers map[string]string `json:"headers,omitempty"`
	// Priority is Normal when not set.
	Priority Priority `json:"priority"`
	// CreatedAt is set by Publish when zero. It, NotBefore and ExpiresAt are of the
	// years 1678 to 2261, which is what nanoseconds in 64 bits reach.
	CreatedAt time.Time `json:"created_at,omitzero"`
	// NotBefore holds the message back until then; zero means at once. It needs
	// a message store and a RetryWorker, or a Transport that is a Delayer.
	NotBefore time.Time `json:"not_before,omitzero"`
	// ExpiresAt is when the message loses its use: a consumer that gets it later
	// puts it into the dead letters with the reason expired. Zero means never, and
	// so does a later time than can be kept, the year 9999 for instance, which a
	// Publisher sets to zero.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// RequireAck says that the end user's acknowledgment makes it delivered,
	// not the handler's return.
	RequireAck bool `json:"require_ack,omitempty"`
}

// NewID returns a new message ID: a UUIDv7, which sorts by time (RFC 9562).
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// NewJSONMessage returns message with value, encoded as JSON, for its Body, which a
// Handler made by JSON decodes, and with the ContentType application/json unless it has
// another. Give the Recipient, the Type and whatever else is to be set in message. The
// error is ErrInvalid: an *EncodeError where value has no JSON form, or an *InvalidError
// where message has a Body already.
func NewJSONMessage(message Message, value any) (Message, error) {
	if len(message.Body) > 0 {
		return Message{}, &InvalidError{Field: "Body", Problem: "is set, want the value alone"}
	}
	body, err := json.Marshal(value)
	if err != nil {
		return Message{}, &EncodeError{Type: fmt.Sprintf("%T", value), Err: err}
	}
	message.Body = body
	if message.ContentType == "" {
		message.ContentType = "application/json"
	}
	return message, nil
}

// EncodeError says that a value could not be made a Body. It is ErrInvalid. Its text has
// nothing of the value and is fit for logs.
type EncodeError struct {
	// Type is the value's Go type.
	Type string
	// Err is the encoder's error. Its text may quote the value.
	Err error
}

func (e *EncodeError) Error() string {
	text := "delivery: message Body can't be made of a " + e.Type
	if unsupported, ok := errors.AsType[*json.UnsupportedTypeError](e.Err); ok {
		text += fmt.Sprintf(": %s has no JSON form", unsupported.Type)
	}
	return text
}

// Is makes it ErrInvalid.
func (e *EncodeError) Is(target error) bool { return target == ErrInvalid }

// Unwrap returns the encoder's error.
func (e *EncodeError) Unwrap() error { return e.Err }

// Key is what duplicates of m have in common: IdempotencyKey, or else ID.
func (m *Message) Key() string {
	if m.IdempotencyKey != "" {
		return m.IdempotencyKey
	}
	return m.ID
}

// differsIn is the first field in which what m says differs from what other says, or
// empty. Times and the priority may differ: they are often made anew when a message is
// published again.
func (m *Message) differsIn(other *Message) string {
	switch {
	case m.Recipient != other.Recipient:
		return "Recipient"
	case m.Type != other.Type:
		return "Type"
	case m.Subject != other.Subject:
		return "Subject"
	case m.ContentType != other.ContentType:
		return "ContentType"
	case m.Key() != other.Key():
		return "IdempotencyKey"
	case !maps.Equal(m.Headers, other.Headers):
		return "Headers"
	case !bytes.Equal(m.Body, other.Body):
		return "Body"
	}
	return ""
}

// Expired says whether m has lost its use at now.
func (m *Message) Expired(now time.Time) bool {
	return !m.ExpiresAt.IsZero() && !now.Before(m.ExpiresAt)
}

// Validate checks every field and reports all faults at once, each as an
// *InvalidError or a *TooLargeError. It does not check the body's size, which
// PublisherConfig.MaxBodyBytes bounds.
func (m *Message) Validate() error {
	var faults []error
	tooLarge := func(field string, size, limit int) {
		if size > limit {
			faults = append(faults, &TooLargeError{Field: field, Size: size, Limit: limit})
		}
	}
	invalid := func(field, problem string) {
		faults = append(faults, &InvalidError{Field: field, Problem: problem})
	}
	if m.ID == "" {
		invalid("ID", "is empty")
	}
	if m.Recipient == "" {
		invalid("Recipient", "is empty")
	}
	if !m.Priority.Valid() {
		invalid("Priority", fmt.Sprintf("is %d, want %d to %d", m.Priority, Low, Urgent))
	}
	tooLarge("ID", len(m.ID), MaxIDBytes)
	tooLarge("Type", len(m.Type), MaxIDBytes)
	tooLarge("ContentType", len(m.ContentType), MaxIDBytes)
	tooLarge("IdempotencyKey", len(m.IdempotencyKey), MaxAttributeBytes)
	tooLarge("Recipient", len(m.Recipient), MaxAttributeBytes)
	tooLarge("Subject", len(m.Subject), MaxAttributeBytes)
	m.checkHeaders(tooLarge, invalid)
	for _, at := range []struct {
		field string
		time  time.Time
	}{{"CreatedAt", m.CreatedAt}, {"NotBefore", m.NotBefore}, {"ExpiresAt", m.ExpiresAt}} {
		if !at.time.IsZero() && (at.time.Before(earliest) || at.time.After(latest)) {
			invalid(at.field, fmt.Sprintf("is %s, want %d to %d", at.time.Format(time.RFC3339), earliest.Year()+1, latest.Year()-1))
		}
	}
	if !m.ExpiresAt.IsZero() && m.ExpiresAt.Before(m.NotBefore) {
		invalid("ExpiresAt", "is before NotBefore")
	}
	return errors.Join(faults...)
}

func (m *Message) checkHeaders(tooLarge func(field string, size, limit int), invalid func(field, problem string)) {
	total := 0
	for key, value := range m.Headers {
		if key == "" {
			invalid("Headers", "has an empty key")
		}
		if len(key) > MaxIDBytes {
			// The key is shortened: whoever sends a megabyte of key need not
			// have it all in a log.
			tooLarge(fmt.Sprintf("Headers[%.32q...] key", key), len(key), MaxIDBytes)
		}
		total += len(key) + len(value)
	}
	tooLarge("Headers", total, MaxHeaderBytes)
}

// Times travel as Unix nanoseconds in 64 bits.
var (
	earliest = time.Unix(0, math.MinInt64)
	latest   = time.Unix(0, math.MaxInt64)
)

// expiry is ExpiresAt as it travels: a time that can't be kept is never.
func expiry(at time.Time) time.Time {
	if at.After(latest) {
		return time.Time{}
	}
	return at
}
