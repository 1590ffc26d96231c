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

// ErrDamaged says that a stored dead letter or job can't be read. The text says
// which. It can be deleted like any other.
var ErrDamaged = errors.New("sqlstore: what is stored can't be read")

// deadLetterTables are the two tables that dead letters are kept in.
type deadLetterTables struct {
	heads    *table // the columns by which letters are found, and their claims
	claims   *table // the columns of claims alone
	contents *table // the other columns, which are large

	locked    lookup // deadLetterState of heads, locked
	whole     lookup // contents
	operation *operation
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

func newDeadLetterTables(d *dialect, prefix string) *deadLetterTables {
	heads, contents := prefix+"dead_letters", prefix+"dead_letter_contents"
	l := &deadLetterTables{
		heads:    newTable(d, heads, headColumns...),
		claims:   newTable(d, heads, append([]column{{"id", blob}}, claimColumns...)...),
		contents: newTable(d, contents, contentColumns...),
		locked:   d.lookup("d.id, d.dead_at, "+named("d", claimColumns), heads+" AS d", "d.id", "d"),
		whole:    d.lookup(named("e", contentColumns), contents+" AS e", "e.id", ""),
	}
	l.operation = newOperation("dead letters", 60, l.run, nil)
	return l
}

// shorten is text as it stands in an index, which has no room for a long one:
// the beginning of the text, and the SHA-256 of all of it. A text of less than
// maxIndexedBytes stays as it is.
func shorten(text string) []byte {
	if len(text) < maxIndexedBytes {
		return append(make([]byte, 0, len(text)), text...)
	}
	sum := sha256.Sum256([]byte(text))
	return append([]byte(text[:maxIndexedBytes-len(sum)]), sum[:]...)
}

// isShortened returns whether a result of shorten is not the whole text.
func isShortened(text []byte) bool { return len(text) == maxIndexedBytes }

func shortenAll(texts []string) []string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = string(shorten(text))
	}
	return all
}

// encodedDeadLetter is an entry as rows of its tables. Its head lacks the
// columns of the claim.
type encodedDeadLetter struct {
	key     string
	deadAt  int64
	head    row
	content *deadLetterContent
}

// encodeDeadLetter turns entry into rows that share nothing with it.
func encodeDeadLetter(entry *dlq.Entry) (encodedDeadLetter, error) {
	if entry.ID == "" {
		return encodedDeadLetter{}, fmt.Errorf("%w: Entry.ID is empty", dlq.ErrInvalid)
	}
	rest := *entry
	rest.DeadAt = wholeMicros(entry.DeadAt)
	rest.FirstFailedAt = wholeMicros(entry.FirstFailedAt)
	// These have columns of their own, because in JSON they could be a third larger.
	rest.Error, rest.Raw, rest.Envelope.Body = "", nil, nil
	encoded, err := json.Marshal(rest)
	if err != nil {
		return encodedDeadLetter{}, fmt.Errorf("%w: Entry %s has a time that can't be written: %w", dlq.ErrInvalid, entry.ID, err)
	}
	id := shorten(entry.ID)
	r := encodedDeadLetter{key: string(id), deadAt: rest.DeadAt.UnixMicro()}
	r.head = row{
		id, r.deadAt, shorten(string(entry.Reason)), shorten(entry.Envelope.Recipient), shorten(entry.Envelope.Type),
		shorten(entry.Fingerprint), shorten(entry.Source),
	}
	r.content = &deadLetterContent{
		id: id, entry: encoded, err: entry.Error, body: cloneOf(entry.Envelope.Body), raw: cloneOf(entry.Raw),
	}
	return r, nil
}

// cloneOf is a copy of b, or nil when b is empty, as it is read back from the
// database.
func cloneOf(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

// wholeMicros is t cut to microseconds. A time before 1970 is cut like any
// other.
func wholeMicros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// size is how many bytes the entry has, approximately.
func (r *encodedDeadLetter) size() int {
	return len(r.content.entry) + len(r.content.err) + len(r.content.body) + len(r.content.raw)
}

// deadLetterContent is a row of contents. It is shared, and never changed.
type deadLetterContent struct {
	id, entry []byte
	err       string
	body, raw []byte
}

func (c *deadLetterContent) row() row {
	r := row{c.id, c.entry, bytesOf(c.err), nil, nil}
	if len(c.body) > 0 {
		r[3] = c.body
	}
	if len(c.raw) > 0 {
		r[4] = c.raw
	}
	return r
}

func scanContent(answer scanner) (*deadLetterContent, error) {
	c := new(deadLetterContent)
	err := answer.Scan((*intoBytes)(&c.id), (*intoBytes)(&c.entry), (*intoString)(&c.err), (*intoBytes)(&c.body), (*intoBytes)(&c.raw))
	return c, err
}

// decode returns an entry that shares nothing with c.
func (c *deadLetterContent) decode() (dlq.Entry, error) {
	var entry dlq.Entry
	// The error is left out, because it can repeat parts of the entry.
	if json.Unmarshal(c.entry, &entry) != nil || !bytes.Equal(shorten(entry.ID), c.id) {
		return dlq.Entry{}, fmt.Errorf("%w: dead letter %.100q", ErrDamaged, c.id)
	}
	entry.Error = c.err
	entry.Envelope.Body = bytes.Clone(c.body)
	entry.Raw = bytes.Clone(c.raw)
	return entry, nil
}
