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
// token, until (in microseconds since 1970) and replaced. What the index is
// made of has fields of its own, so that filters and counts need not read the
// rest. Bodies have, because in JSON they would be a third larger. All else is
// JSON, in the field entry. The first six are what described returns in
// scripts, which know the order.
var hashFields = [...]string{
	"at", "reason", "recipient", "type", "fingerprint", "source", "error", "size", "entry", "body", "raw",
}

// entryHash is an entry in the form in which it is stored.
type entryHash struct {
	id    string
	entry *dlq.Entry // for body and raw
	at    string
	rest  []byte // JSON
}

// newEntryHash returns dlq.ErrInvalid for an entry that can't be stored.
func newEntryHash(entry *dlq.Entry) (entryHash, error) {
	if entry.ID == "" {
		return entryHash{}, fmt.Errorf("%w: Entry.ID is empty", dlq.ErrInvalid)
	}
	rest := *entry
	rest.DeadAt = microseconds(entry.DeadAt)
	rest.FirstFailedAt = microseconds(entry.FirstFailedAt)
	// These have fields of their own.
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

// arguments returns what the script put takes. They share no bytes with the
// entry: a caller whose context ends gets it back while the client may still be
// sending them.
func (r *entryHash) arguments() []any {
	e := r.entry
	return []any{
		r.id,
		r.at, string(e.Reason), e.Envelope.Recipient, e.Envelope.Type, e.Fingerprint, e.Source, e.Error,
		strconv.Itoa(r.size()), r.rest, bytes.Clone(e.Envelope.Body), bytes.Clone(e.Raw),
	}
}

// parseEntry decodes the answer to HMGET of hashFields. There is no entry when
// found is false.
func parseEntry(id string, values []any) (entry dlq.Entry, place string, found bool, err error) {
	fields := make([]string, len(hashFields))
	for i := range min(len(fields), len(values)) {
		fields[i], _ = values[i].(string)
	}
	place = fields[0]
	if place == "" {
		return dlq.Entry{}, "", false, nil
	}
	// The error is left out: it could show parts of the message.
	if json.Unmarshal([]byte(fields[8]), &entry) != nil {
		return dlq.Entry{}, place, true, fmt.Errorf("%w: %s", ErrDamaged, id)
	}
	describe(&entry, id, fields[1:])
	entry.Error = fields[6]
	entry.Envelope.Body = unlessEmpty(fields[9])
	entry.Raw = unlessEmpty(fields[10])
	return entry, place, true, nil
}

// describe sets what can be filtered by.
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

// headFields are the fields that filters look at, and how large the entry is.
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
