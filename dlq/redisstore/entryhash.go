package redisstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// hashFields are the fields of an entry's hash, beside those of its claim:
// token, until (in microseconds since 1970) and replaced. What the index is made
// of stands by itself, so that filters and counts need not read the rest; bodies
// do, because in JSON they would be a third larger; all else is in entry, as
// JSON. The first six are what scripts call described; scripts know the order.
var hashFields = [...]string{
	"at", "reason", "recipient", "type", "fingerprint", "source", "error", "size", "entry", "body", "raw",
}

// entryHash is an entry in the form in which it is put.
type entryHash struct {
	id    string
	entry *dlq.Entry // for body and raw
	at    string
	rest  []byte // JSON
}

// newEntryHash fails with dlq.ErrInvalid.
func newEntryHash(entry *dlq.Entry) (entryHash, error) {
	if entry.ID == "" {
		return entryHash{}, fmt.Errorf("%w: Entry.ID is empty", dlq.ErrInvalid)
	}
	rest := *entry
	rest.DeadAt = microseconds(entry.DeadAt)
	rest.FirstFailedAt = microseconds(entry.FirstFailedAt)
	// What has a field of its own.
	rest.ID, rest.Error, rest.Reason, rest.Fingerprint, rest.Source, rest.Raw = "", "", "", "", "", nil
	rest.Envelope.Recipient, rest.Envelope.Type, rest.Envelope.Body = "", "", nil
	encoded, err := json.Marshal(rest)
	if err != nil {
		return entryHash{}, fmt.Errorf("%w: Entry %s has a time that can't be written: %w", dlq.ErrInvalid, entry.ID, err)
	}
	return entryHash{id: entry.ID, entry: entry, at: placeOf(rest.DeadAt), rest: encoded}, nil
}

func microseconds(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func (r *entryHash) size() int {
	return len(r.rest) + len(r.entry.Envelope.Body) + len(r.entry.Raw) + len(r.entry.Error)
}

// arguments are what the script put wants. They share no bytes with the entry:
// a caller whose context ends gets it back while they may still be on their way.
func (r *entryHash) arguments() []any {
	e := r.entry
	return []any{
		r.id,
		r.at, string(e.Reason), e.Envelope.Recipient, e.Envelope.Type, e.Fingerprint, e.Source, e.Error,
		strconv.Itoa(r.size()), r.rest, bytes.Clone(e.Envelope.Body), bytes.Clone(e.Raw),
	}
}

// parseEntry reads the answer to HMGET of hashFields. There is no entry when found
// is false.
func parseEntry(id string, values []any) (entry dlq.Entry, place string, found bool, err error) {
	fields := make([]string, len(hashFields))
	for i := range min(len(fields), len(values)) {
		fields[i], _ = values[i].(string)
	}
	place = fields[0]
	if place == "" {
		return dlq.Entry{}, "", false, nil
	}
	// A fault of the JSON can repeat parts of what it should have been.
	if json.Unmarshal([]byte(fields[8]), &entry) != nil {
		return dlq.Entry{}, place, true, fmt.Errorf("%w: %s", ErrDamaged, id)
	}
	describe(&entry, id, fields[1:])
	entry.Error = fields[6]
	entry.Envelope.Body = unlessEmpty(fields[9])
	entry.Raw = unlessEmpty(fields[10])
	return entry, place, true, nil
}

// describe sets what has a field of its own and can be filtered by.
func describe(entry *dlq.Entry, id string, fields []string) {
	entry.ID = id
	entry.Reason = delivery.Reason(fields[0])
	entry.Envelope.Recipient = fields[1]
	entry.Envelope.Type = fields[2]
	entry.Fingerprint = fields[3]
	entry.Source = fields[4]
}

func unlessEmpty(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

// headFields are enough to filter an entry, and to know how much reading it
// takes.
var headFields = [...]string{"at", "reason", "recipient", "type", "fingerprint", "source", "size"}

// head is an entry without what can be large.
type head struct {
	entry dlq.Entry // as far as Filter.Match looks
	place string    // empty when there is no entry
	size  int
}

func parseHead(id string, values []any) (head, error) {
	fields := make([]string, len(headFields))
	for i := range min(len(fields), len(values)) {
		fields[i], _ = values[i].(string)
	}
	h := head{place: fields[0]}
	if h.place == "" {
		return h, nil
	}
	at, err := timeOf(h.place)
	if err != nil {
		return h, err
	}
	describe(&h.entry, id, fields[1:])
	h.entry.DeadAt = at
	h.size, _ = strconv.Atoi(fields[6])
	return h, nil
}
