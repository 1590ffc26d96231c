package delivery

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// The bounds of RecordQuery.Limit.
const (
	DefaultRecordLimit = 100
	MaxRecordLimit     = 1000
)

// RecordFilter picks records. All fields that are set must fit; the zero filter
// picks everything.
type RecordFilter struct {
	// Queue: the record belongs to it. Empty: all queues.
	Queue string
	// Statuses: the record has one of them.
	Statuses []Status
	// Recipient: the record has the same.
	Recipient string
	// Type: the record has the same.
	Type string
	// IdempotencyKey: the record has the same Message.Key.
	IdempotencyKey string
	// Priorities: the record has one of them.
	Priorities []Priority
	// Since and Until bound CreatedAt: at or after Since, before Until.
	Since time.Time
	Until time.Time
}

// Match says whether the filter picks record.
func (f *RecordFilter) Match(record *Record) bool {
	return (f.Queue == "" || f.Queue == record.Queue) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, record.Status)) &&
		(f.Recipient == "" || f.Recipient == record.Recipient) &&
		(f.Type == "" || f.Type == record.Type) &&
		(f.IdempotencyKey == "" || f.IdempotencyKey == record.Key()) &&
		(len(f.Priorities) == 0 || slices.Contains(f.Priorities, record.Priority)) &&
		(f.Since.IsZero() || !record.CreatedAt.Before(f.Since)) &&
		(f.Until.IsZero() || record.CreatedAt.Before(f.Until))
}

// RecordOrder is an order of records by CreatedAt, and by ID among equals.
type RecordOrder uint8

// The orders.
const (
	NewestFirst RecordOrder = iota
	OldestFirst
)

// RecordQuery asks for one page of records.
type RecordQuery struct {
	RecordFilter
	// Order is NewestFirst by default.
	Order RecordOrder
	// Limit is how many records a page has at most. Default DefaultRecordLimit,
	// from 1 to MaxRecordLimit.
	Limit int
	// Cursor is empty for the first page and RecordPage.Next for each further
	// one, with the same filter and order.
	Cursor string
}

// RecordPage is a part of the records that a RecordQuery picks.
type RecordPage struct {
	// Records belong to the caller. They have no Body: Store.Get has it.
	Records []Record `json:"records"`
	// Next is the Cursor for the next page, empty when there is none.
	Next string `json:"next,omitempty"`
}

// RecordScan is what a Store works with: a RecordQuery that has been checked, with
// defaults filled in and the cursor decoded.
type RecordScan struct {
	RecordFilter
	Order RecordOrder
	Limit int
	// After is the last record of the page before; an empty After.ID means that
	// this is the first page.
	After Position
}

// Scan checks the query. It reports all faults at once, joined; each is ErrQuery or
// ErrCursor.
func (q *RecordQuery) Scan() (RecordScan, error) {
	scan := RecordScan{RecordFilter: q.RecordFilter, Order: q.Order, Limit: q.Limit}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrQuery}, args...)...))
	}
	if scan.Limit == 0 {
		scan.Limit = DefaultRecordLimit
	}
	if scan.Limit < 1 || scan.Limit > MaxRecordLimit {
		fault("Limit is %d, want 1 to %d", q.Limit, MaxRecordLimit)
	}
	if q.Order > OldestFirst {
		fault("Order is %d, want NewestFirst or OldestFirst", q.Order)
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		fault("Since is not before Until")
	}
	for _, status := range q.Statuses {
		if !status.Valid() {
			fault("Statuses has %.32q, want the statuses only", string(status))
		}
	}
	for _, priority := range q.Priorities {
		if !priority.Valid() {
			fault("Priorities has %d, want %d to %d", priority, Low, Urgent)
		}
	}
	if q.Cursor != "" {
		after, err := DecodeCursor(q.Cursor, scan.digest())
		if err != nil {
			faults = append(faults, err)
		}
		scan.After = after
	}
	if err := errors.Join(faults...); err != nil {
		return RecordScan{}, err
	}
	return scan, nil
}

// Cursor returns the cursor of the page after the one that ends with last.
func (s *RecordScan) Cursor(last *Record) string {
	return EncodeCursor(PositionOf(last), s.digest())
}

func (s *RecordScan) digest() uint64 {
	return CursorDigest("records", s.Queue, s.Recipient, s.Type, s.IdempotencyKey, fmt.Sprint(s.Statuses, s.Priorities, s.Order),
		s.Since.UTC().String(), s.Until.UTC().String())
}

// PositionOf returns a record's place in the order of all records.
func PositionOf(record *Record) Position { return Position{At: record.CreatedAt, ID: record.ID} }
