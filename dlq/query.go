package dlq

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// The bounds of Query.Limit.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Filter picks entries. All fields that are set must fit; the zero Filter
// picks everything.
type Filter struct {
	Reason      delivery.Reason
	Recipient   string
	Type        string
	Fingerprint string
	Source      string
	// Since and Until bound DeadAt: at or after Since, before Until.
	Since time.Time
	Until time.Time
}

// Match says whether the filter picks entry.
func (f *Filter) Match(entry *Entry) bool {
	return (f.Reason == "" || f.Reason == entry.Reason) &&
		(f.Recipient == "" || f.Recipient == entry.Envelope.Recipient) &&
		(f.Type == "" || f.Type == entry.Envelope.Type) &&
		(f.Fingerprint == "" || f.Fingerprint == entry.Fingerprint) &&
		(f.Source == "" || f.Source == entry.Source) &&
		(f.Since.IsZero() || !entry.DeadAt.Before(f.Since)) &&
		(f.Until.IsZero() || entry.DeadAt.Before(f.Until))
}

// Order is by DeadAt, and by ID among equals.
type Order uint8

// The orders.
const (
	NewestFirst Order = iota
	OldestFirst
)

// Query asks for one page of entries.
type Query struct {
	Filter
	// Order is NewestFirst by default.
	Order Order
	// Limit is how many entries a page has at most. Default DefaultLimit, from 1
	// to MaxLimit.
	Limit int
	// Cursor is empty for the first page and Page.Next for each further one,
	// with the same Filter and Order.
	Cursor string
}

// Page is a part of the entries that a Query picks.
type Page struct {
	// Entries belong to the caller.
	Entries []Entry `json:"entries"`
	// Next is the Cursor for the next page, empty when there is none.
	Next string `json:"next,omitempty"`
}

// Position is an entry's place in the order of all entries.
type Position struct {
	DeadAt time.Time
	ID     string
}

// PositionOf returns an entry's place.
func PositionOf(entry *Entry) Position { return Position{DeadAt: entry.DeadAt, ID: entry.ID} }

// Compare is negative when p is older than other, 0 when they are the same,
// positive when p is newer.
func (p Position) Compare(other Position) int {
	if byTime := p.DeadAt.Compare(other.DeadAt); byTime != 0 {
		return byTime
	}
	return strings.Compare(p.ID, other.ID)
}

// Scan is a Query that has been checked, with defaults filled in and the cursor
// decoded: what a Store works with. A cursor names the place of the last entry
// seen, not a count of entries, so that pages stay stable while entries come
// and go.
type Scan struct {
	Filter
	Order Order
	Limit int
	// After is the last entry of the page before; an empty After.ID means that
	// this is the first page.
	After Position
}

// Scan checks the query. Faults are ErrQuery or ErrCursor, all at once.
func (q *Query) Scan() (Scan, error) {
	scan := Scan{Filter: q.Filter, Order: q.Order, Limit: q.Limit}
	var faults []error
	if scan.Limit == 0 {
		scan.Limit = DefaultLimit
	}
	if scan.Limit < 1 || scan.Limit > MaxLimit {
		faults = append(faults, fmt.Errorf("%w: Limit is %d, want 1 to %d", ErrQuery, q.Limit, MaxLimit))
	}
	if q.Order > OldestFirst {
		faults = append(faults, fmt.Errorf("%w: Order is %d, want NewestFirst or OldestFirst", ErrQuery, q.Order))
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		faults = append(faults, fmt.Errorf("%w: Since is not before Until", ErrQuery))
	}
	if q.Cursor != "" {
		after, err := scan.decode(q.Cursor)
		faults = append(faults, err)
		scan.After = after
	}
	if err := errors.Join(faults...); err != nil {
		return Scan{}, err
	}
	return scan, nil
}

// A cursor is a version, a digest of the filter and the order, the
// microseconds of DeadAt, and the ID.
const (
	cursorVersion = 1
	cursorHead    = 1 + 8 + 8
)

var cursorText = base64.RawURLEncoding.Strict()

// Cursor returns the cursor of the page after the one that ends with last.
func (s *Scan) Cursor(last *Entry) string {
	cursor := make([]byte, 0, cursorHead+len(last.ID))
	cursor = append(cursor, cursorVersion)
	cursor = binary.BigEndian.AppendUint64(cursor, s.digest())
	cursor = binary.BigEndian.AppendUint64(cursor, uint64(last.DeadAt.UnixMicro()))
	return cursorText.EncodeToString(append(cursor, last.ID...))
}

func (s *Scan) decode(text string) (Position, error) {
	cursor, err := cursorText.DecodeString(text)
	// The decoder passes over line breaks, which no cursor of ours has.
	if err != nil || strings.ContainsAny(text, "\r\n") || len(cursor) <= cursorHead || cursor[0] != cursorVersion {
		return Position{}, fmt.Errorf("%w: it is damaged", ErrCursor)
	}
	if binary.BigEndian.Uint64(cursor[1:]) != s.digest() {
		return Position{}, fmt.Errorf("%w: it belongs to a query with another filter or order", ErrCursor)
	}
	return Position{
		DeadAt: time.UnixMicro(int64(binary.BigEndian.Uint64(cursor[9:]))).UTC(),
		ID:     string(cursor[cursorHead:]),
	}, nil
}

// digest tells queries apart whose pages don't belong together.
func (s *Scan) digest() uint64 {
	hash := fnv.New64a()
	for _, field := range []string{string(s.Reason), s.Recipient, s.Type, s.Fingerprint, s.Source} {
		_ = binary.Write(hash, binary.BigEndian, uint64(len(field)))
		_, _ = hash.Write([]byte(field))
	}
	_ = binary.Write(hash, binary.BigEndian, []int64{s.Since.UnixMicro(), s.Until.UnixMicro(), int64(s.Order)})
	return hash.Sum64()
}
