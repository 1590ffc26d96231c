package sqlstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/dlq"
)

// ErrDamaged says that a dead letter or a job is not what it was when it was put.
// The text names which. It can be deleted like any other.
var ErrDamaged = errors.New("sqlstore: what is stored can't be read")

// letters is how dead letters lie in their two tables.
type letters struct {
	heads    *table // what they are found by, and their claims
	claims   *table // the claims alone
	contents *table // the rest, which is large

	locked lookup // letterState of heads, locked
	whole  lookup // contents
	steps  *operation
}

var claimColumns = []column{ //nolint:gochecknoglobals // a constant
	{"claim_token", blob}, {"claimed_until", count}, {"replaced", count},
}

var headColumns = append([]column{ //nolint:gochecknoglobals // a constant
	{"id", blob}, {"dead_at", integer}, {"reason", blob}, {"recipient", blob}, {"type", blob}, {"fingerprint", blob}, {"source", blob},
}, claimColumns...)

var contentColumns = []column{ //nolint:gochecknoglobals // a constant
	{"id", blob}, {"entry", blob}, {"error", blob}, {"body", blob}, {"raw", blob},
}

func newLetters(d *dialect, prefix string) *letters {
	heads, contents := prefix+"dead_letters", prefix+"dead_letter_contents"
	l := &letters{
		heads:    newTable(d, heads, headColumns...),
		claims:   newTable(d, heads, append([]column{{"id", blob}}, claimColumns...)...),
		contents: newTable(d, contents, contentColumns...),
		locked:   d.lookup("d.id, d.dead_at, "+named("d", claimColumns), heads+" AS d", "d.id", "d"),
		whole:    d.lookup(named("e", contentColumns), contents+" AS e", "e.id", ""),
	}
	l.steps = newOperation("dead letters", 60, l.run, nil)
	return l
}

// short is text as it stands in an index, which has no room for a long one: of
// that it has a part, and the SHA-256 of all. What is shorter than
// maxIndexedBytes is as it was.
func short(text string) []byte {
	if len(text) < maxIndexedBytes {
		return append(make([]byte, 0, len(text)), text...)
	}
	sum := sha256.Sum256([]byte(text))
	return append([]byte(text[:maxIndexedBytes-len(sum)]), sum[:]...)
}

// isShortened says of what short has made whether it is not the whole text.
func isShortened(text []byte) bool { return len(text) == maxIndexedBytes }

func shorts(texts []string) []string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = string(short(text))
	}
	return all
}

// letterRows is an entry as rows of its tables, heads without the claim.
type letterRows struct {
	key     string
	deadAt  int64
	head    row
	content *letterContent
}

// encodeLetter is entry as rows that share nothing with it.
func encodeLetter(entry *dlq.Entry) (letterRows, error) {
	if entry.ID == "" {
		return letterRows{}, fmt.Errorf("%w: Entry.ID is empty", dlq.ErrInvalid)
	}
	rest := *entry
	rest.DeadAt = wholeMicros(entry.DeadAt)
	rest.FirstFailedAt = wholeMicros(entry.FirstFailedAt)
	// What has a column of its own, because in JSON it could be a third larger.
	rest.Error, rest.Raw, rest.Envelope.Body = "", nil, nil
	encoded, err := json.Marshal(rest)
	if err != nil {
		return letterRows{}, fmt.Errorf("%w: Entry %s has a time that can't be written: %w", dlq.ErrInvalid, entry.ID, err)
	}
	id := short(entry.ID)
	r := letterRows{key: string(id), deadAt: rest.DeadAt.UnixMicro()}
	r.head = row{
		id, r.deadAt, short(string(entry.Reason)), short(entry.Envelope.Recipient), short(entry.Envelope.Type),
		short(entry.Fingerprint), short(entry.Source),
	}
	r.content = &letterContent{
		id: id, entry: encoded, err: entry.Error, body: cloneOf(entry.Envelope.Body), raw: cloneOf(entry.Raw),
	}
	return r, nil
}

// cloneOf is a copy, or nil of nothing, as it comes back from the database.
func cloneOf(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

// wholeMicros is t as entries have it; a time before 1970 is cut as any other is.
func wholeMicros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// size is how many bytes it has, more or less.
func (r *letterRows) size() int {
	return len(r.content.entry) + len(r.content.err) + len(r.content.body) + len(r.content.raw)
}

// letterContent is a row of contents. It is shared, and never changed.
type letterContent struct {
	id, entry []byte
	err       string
	body, raw []byte
}

func (c *letterContent) row() row {
	r := row{c.id, c.entry, bytesOf(c.err), nil, nil}
	if len(c.body) > 0 {
		r[3] = c.body
	}
	if len(c.raw) > 0 {
		r[4] = c.raw
	}
	return r
}

func scanContent(answer scanner) (*letterContent, error) {
	c := new(letterContent)
	err := answer.Scan((*intoBytes)(&c.id), (*intoBytes)(&c.entry), (*intoString)(&c.err), (*intoBytes)(&c.body), (*intoBytes)(&c.raw))
	return c, err
}

// decode returns an entry that shares nothing with c.
func (c *letterContent) decode() (dlq.Entry, error) {
	var entry dlq.Entry
	// A fault of the JSON can repeat parts of what it should have been.
	if json.Unmarshal(c.entry, &entry) != nil || !bytes.Equal(short(entry.ID), c.id) {
		return dlq.Entry{}, fmt.Errorf("%w: dead letter %.100q", ErrDamaged, c.id)
	}
	entry.Error = c.err
	entry.Envelope.Body = bytes.Clone(c.body)
	entry.Raw = bytes.Clone(c.raw)
	return entry, nil
}
