package memory

import (
	"time"

	"github.com/esh3artech/barid/delivery"
)

// dueRecords are records by priority, and by DueAt within each.
type dueRecords map[delivery.Priority]*timeHeap

func (d dueRecords) push(r *storedRecord) {
	heap := d[r.record.Priority]
	if heap == nil {
		heap = &timeHeap{kind: dueHeap, key: func(r *storedRecord) time.Time { return r.record.DueAt }}
		d[r.record.Priority] = heap
	}
	heap.push(r)
}

func (d dueRecords) remove(r *storedRecord) { d[r.record.Priority].remove(r) }

// earliest is the record with the earliest DueAt, or nil.
func (d dueRecords) earliest() *storedRecord {
	var earliest *storedRecord
	for _, heap := range d {
		if first := heap.first(); first != nil && (earliest == nil || heap.items[0].before(d[earliest.record.Priority].items[0])) {
			earliest = first
		}
	}
	return earliest
}

// highest is the record of the highest priority that has some that are due, or
// nil when none is.
func (d dueRecords) highest(now time.Time) *storedRecord {
	for _, priority := range delivery.Priorities() {
		if first := d[priority].first(); first != nil && !first.record.DueAt.After(now) {
			return first
		}
	}
	return nil
}
