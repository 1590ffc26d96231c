package dlq

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Entry is a dead letter as it is kept. Its JSON form is complete and stable:
// stores may keep it, and every string and byte comes back as it was.
type Entry struct {
	// ID is the dead letter's, not the message's.
	ID string
	// Envelope is the message. Its Attempt is how many attempts failed and
	// counted in this generation, its Generation how often it was requeued
	// before, its History the last failures, oldest first. Of a malformed
	// message it holds what could be read.
	Envelope delivery.Envelope
	// Raw is the body as it came, for a malformed message only.
	Raw []byte
	// Reason is why it was given up.
	Reason delivery.Reason
	// Error is the last error's text.
	Error string
	// Fingerprint of Error groups entries that failed in the same way.
	Fingerprint string
	// Source is the name of the consumer that gave it up.
	Source string
	// Facts are what else is known about how it died, for people to read. Names
	// and values are the source's own.
	Facts map[string]string
	// FirstFailedAt is the time of the oldest failure that is remembered, of
	// whatever generation, or DeadAt when none is. UTC, in whole microseconds.
	FirstFailedAt time.Time
	// DeadAt is when it was given up. Entries are listed in its order. UTC, in
	// whole microseconds, which is what all stores can keep.
	DeadAt time.Time
}

// newEntry is letter as it is kept, given up now if it does not say when.
func newEntry(letter *delivery.DeadLetter, now time.Time) Entry {
	if !letter.At.IsZero() {
		now = letter.At
	}
	entry := Entry{
		ID:          letter.ID,
		Envelope:    letter.Envelope,
		Raw:         letter.Raw,
		Reason:      letter.Reason,
		Error:       letter.Error,
		Fingerprint: Fingerprint(letter.Error),
		Source:      letter.Source,
		Facts:       letter.Facts,
		DeadAt:      microseconds(now),
	}
	entry.FirstFailedAt = entry.DeadAt
	for _, failure := range letter.Envelope.History {
		if at := microseconds(failure.At); !failure.At.IsZero() && at.Before(entry.FirstFailedAt) {
			entry.FirstFailedAt = at
		}
	}
	return entry
}

func microseconds(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Clone returns a copy that shares nothing with e.
func (e *Entry) Clone() Entry {
	clone := *e
	clone.Raw = bytes.Clone(e.Raw)
	clone.Facts = maps.Clone(e.Facts)
	clone.Envelope.Body = bytes.Clone(e.Envelope.Body)
	clone.Envelope.Headers = maps.Clone(e.Envelope.Headers)
	clone.Envelope.History = slices.Clone(e.Envelope.History)
	return clone
}

// next is the envelope to be sent when e is requeued: the next generation with
// all attempts before it. An ExpiresAt that has passed is cleared, because
// whoever requeues a message wants it delivered all the same.
func (e *Entry) next(now time.Time) delivery.Envelope {
	envelope := e.Envelope
	envelope.Generation++
	envelope.Attempt = 0
	if envelope.Expired(now) {
		envelope.ExpiresAt = time.Time{}
	}
	return envelope
}
