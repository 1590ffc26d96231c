package dlq

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Entry is a dead letter in a Store. Its JSON form is complete and stable, so
// that stores may keep entries as JSON. Every string and byte comes back as it
// was.
type Entry struct {
	// ID is the dead letter's, not the message's.
	ID string
	// Envelope is the message. Its Attempt is how many counted attempts failed in
	// this generation. Its Generation is how often it was requeued before. Its
	// History is the last failures, oldest first. Of a malformed message it holds
	// what could be read.
	Envelope delivery.Envelope
	// Raw is the body as it was received, for a malformed message only.
	Raw []byte
	// Reason is why the message was given up.
	Reason delivery.Reason
	// Error is the last error's text.
	Error string
	// Fingerprint is that of Error. It groups entries that failed in the same way.
	Fingerprint string
	// Source is the name of the consumer that gave the message up.
	Source string
	// Facts is what else the source knows about the failure, for people to read.
	// Names and values are the source's own.
	Facts map[string]string
	// FirstFailedAt is the time of the oldest failure in History, of whatever
	// generation, or DeadAt when there is none. UTC, in whole microseconds.
	FirstFailedAt time.Time
	// DeadAt is when the message was given up. Entries are listed in its order.
	// UTC, in whole microseconds, which all stores can keep.
	DeadAt time.Time
}

// newEntry returns the entry of letter, bounded as every store can keep it. A
// letter that has no time was given up now.
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
	entry.bound()
	entry.FirstFailedAt = entry.DeadAt
	for _, failure := range entry.Envelope.History {
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

// next returns the envelope to be sent when e is requeued: the next generation,
// with no attempt counted. An ExpiresAt that has passed is cleared, because
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
