package dlq

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/esh3artech/barid/delivery"
)

// The default of Query.Limit and its bound.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Order is an order by DeadAt. Entries with the same DeadAt are ordered by ID.
type Order uint8

// The orders of Query.
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
	// Cursor is empty for the first page. For each further one it is Page.Next
	// of the page before, with the same Filter and Order.
	Cursor string
}

// Page is a part of the entries that a Query picks.
type Page struct {
	// Entries belong to the caller.
	Entries []Entry `json:"entries"`
	// Next is the Cursor of the next page. It is empty when there is none.
	Next string `json:"next,omitempty"`
}

// positionOf returns an entry's position in the order of all entries.
func positionOf(entry *Entry) delivery.Position {
	return delivery.Position{At: entry.DeadAt, ID: entry.ID}
}

// Scan is a checked Query, with its defaults filled in and its cursor decoded.
// It is what a Store works with. A cursor is the position of the last entry
// seen, not a count of entries, so that pages stay stable while entries come
// and go.
type Scan struct {
	Filter
	Order Order
	Limit int
	// After is the position of the last entry of the page before. An empty
	// After.ID means that this is the first page.
	After delivery.Position
}

// Scan checks the query. It reports all faults at once, as ErrQuery or
// ErrCursor.
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

// Cursor returns the Page.Next of a page that ends with last.
func (s *Scan) Cursor(last *Entry) string {
	return delivery.EncodeCursor(positionOf(last), s.digest())
}

// digest identifies the queries whose cursors s takes: those with the same
// filter and order.
func (s *Scan) digest() uint64 {
	return delivery.CursorDigest("dead letters", string(s.Reason), s.Recipient, s.Type, s.Fingerprint, s.Source,
		s.Since.UTC().String(), s.Until.UTC().String(), strconv.Itoa(int(s.Order)))
}
