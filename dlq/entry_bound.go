package dlq

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/esh3artech/barid/delivery"
)

// What an entry holds at most, whatever the letter says, so that every store can
// keep it.
const (
	// MaxCounter bounds Attempt, Generation and Failure.Attempt. An entry whose
	// Generation has got there can't be sent again.
	MaxCounter = 1 << 30
	// MaxErrorBytes bounds Error, and the Error of each failure in the History.
	MaxErrorBytes = 4096
)

// latest is the last microsecond that has a form in JSON. A time zone may have one
// that is later in UTC.
var latest = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC) //nolint:gochecknoglobals // a constant

// boundTime returns at as every store can keep it. A time before the year 0, in
// UTC, counts as none.
func boundTime(at time.Time) time.Time {
	switch year := at.UTC().Year(); {
	case year < 0:
		return time.Time{}
	case year > 9999:
		return latest
	}
	return at
}

func boundCounter(n int) int { return min(max(n, 0), MaxCounter) }

// cut cuts a text at a rune's boundary.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && text[limit]&0xC0 == 0x80 {
		limit--
	}
	return text[:limit]
}

// bound makes e what every store can keep. It does not change what e shares.
func (e *Entry) bound() {
	e.Error = cut(e.Error, MaxErrorBytes)
	e.DeadAt, e.FirstFailedAt = boundTime(e.DeadAt), boundTime(e.FirstFailedAt)
	envelope := &e.Envelope
	envelope.Attempt, envelope.Generation = boundCounter(envelope.Attempt), boundCounter(envelope.Generation)
	envelope.CreatedAt, envelope.NotBefore = boundTime(envelope.CreatedAt), boundTime(envelope.NotBefore)
	envelope.ExpiresAt = boundTime(envelope.ExpiresAt)
	envelope.History = slices.Clone(envelope.History[max(0, len(envelope.History)-delivery.MaxHistory):])
	for i := range envelope.History {
		failure := &envelope.History[i]
		failure.At, failure.Attempt = boundTime(failure.At), boundCounter(failure.Attempt)
		failure.Error = cut(failure.Error, MaxErrorBytes)
	}
}

// strippedSpace makes the IDs of stripped entries whose own could not be kept.
var strippedSpace = uuid.MustParse("b0a4e9a5-4f0e-4ff9-9d0a-6f4a0f8d8a35") //nolint:gochecknoglobals // a constant

// FactReason is the name of the fact that has the Reason of an entry that a store
// refused as it was.
const FactReason = "dead-letter-reason"

// stripped returns what is kept of an entry that a store refused: its body as raw
// bytes, and texts without anything odd. It is malformed, because it is not what
// was to be sent.
func (e *Entry) stripped(refusal error) Entry {
	message := &e.Envelope.Message
	s := Entry{
		ID:     clean(e.ID, delivery.MaxIDBytes),
		Raw:    e.Raw,
		Reason: delivery.ReasonMalformed,
		Error:  clean(fmt.Sprintf("dlq: kept without what the store refused (%s): %s", clean(refusal.Error(), maxLastError), e.Error), MaxErrorBytes),
		Source: clean(e.Source, delivery.MaxIDBytes),
		Facts:  cleanMap(e.Facts),
		DeadAt: e.DeadAt, FirstFailedAt: e.FirstFailedAt,
	}
	if s.ID != e.ID {
		s.ID = uuid.NewSHA1(strippedSpace, []byte(e.ID)).String()
	}
	if s.Raw == nil {
		s.Raw = message.Body
	}
	if s.Facts == nil {
		s.Facts = make(map[string]string, 1)
	}
	s.Facts[FactReason] = clean(string(e.Reason), delivery.MaxIDBytes)
	s.Fingerprint = Fingerprint(s.Error)
	s.Envelope = delivery.Envelope{
		Message: delivery.Message{
			ID: clean(message.ID, delivery.MaxIDBytes), IdempotencyKey: clean(message.IdempotencyKey, delivery.MaxAttributeBytes),
			Recipient: clean(message.Recipient, delivery.MaxAttributeBytes), Subject: clean(message.Subject, delivery.MaxAttributeBytes),
			Type: clean(message.Type, delivery.MaxIDBytes), ContentType: clean(message.ContentType, delivery.MaxIDBytes),
			Headers: cleanMap(message.Headers), Priority: delivery.Normal, RequireAck: message.RequireAck,
		},
		Attempt: e.Envelope.Attempt, Generation: e.Envelope.Generation,
	}
	return s
}

// clean returns text as UTF-8 without what can't be printed, cut to a limit.
func clean(text string, limit int) string {
	text = strings.ToValidUTF8(text, string(unicode.ReplacementChar))
	return cut(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text), limit)
}

// cleanMap keeps as many texts as headers may have bytes.
func cleanMap(texts map[string]string) map[string]string {
	var cleaned map[string]string
	size := 0
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		name, value := clean(key, delivery.MaxIDBytes), clean(texts[key], delivery.MaxAttributeBytes)
		if size += len(name) + len(value); size > delivery.MaxHeaderBytes {
			break
		}
		if cleaned == nil {
			cleaned = make(map[string]string)
		}
		cleaned[name] = value
	}
	return cleaned
}
