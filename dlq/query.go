package dlq

import (
	"errors"
	"fmt"
	"strconv"
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

// CheckFilter returns ErrQuery when no time can be within filter's bounds.
func CheckFilter(filter *Filter) error {
	if !filter.Since.IsZero() && !filter.Until.IsZero() && !filter.Since.Before(filter.Until) {
		return fmt.Errorf("%w: Since is not before Until", ErrQuery)
	}
	return nil
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

// PositionOf returns an entry's place in the order of all entries.
func PositionOf(entry *Entry) delivery.Position {
	return delivery.Position{At: entry.DeadAt, ID: entry.ID}
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
	After delivery.Position
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
	faults = append(faults, CheckFilter(&q.Filter))
	if q.Cursor != "" {
		after, err := delivery.DecodeCursor(q.Cursor, scan.digest())
		if err != nil {
			faults = append(faults, fmt.Errorf("%w: %w", ErrCursor, err))
		}
		scan.After = after
	}
	if err := errors.Join(faults...); err != nil {
		return Scan{}, err
	}
	return scan, nil
}

// Cursor returns the cursor of the page after the one that ends with last.
func (s *Scan) Cursor(last *Entry) string {
	return delivery.EncodeCursor(PositionOf(last), s.digest())
}

// digest tells queries apart whose pages don't belong together.
func (s *Scan) digest() uint64 {
	return delivery.CursorDigest("dead letters", string(s.Reason), s.Recipient, s.Type, s.Fingerprint, s.Source,
		s.Since.UTC().String(), s.Until.UTC().String(), strconv.Itoa(int(s.Order)))
}
