package memory

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// records are what a Store keeps, with what finds them. All is called under the
// store's lock.
type records struct {
	saved  uint64 // how many ever
	byID   map[string]*row
	byAge  timeline
	claims map[string][]*row // by who claimed them

	due     map[delivery.Status]*rowHeap // what has a DueAt, by it
	pending *rowHeap                     // what is pending, by CreatedAt
	settled *rowHeap                     // what may be purged, by UpdatedAt

	counts map[delivery.Status]map[delivery.Priority]int
}

// row is a record in its places. Of the record only the progress ever changes,
// and no byte that a slice or map of it holds, so that a copy of it may be read
// when the lock is gone.
type row struct {
	record delivery.Record
	// number orders what is equal otherwise.
	number uint64
	// status is the one that it is counted by.
	status delivery.Status
	// token and claim are its place in claims.
	token string
	claim int
	// places are those in heaps, by the heap's kind.
	places [heapKinds]place
}

func newRecords() *records {
	r := &records{
		byID:    map[string]*row{},
		claims:  map[string][]*row{},
		due:     map[delivery.Status]*rowHeap{},
		pending: &rowHeap{kind: pendingHeap, key: func(row *row) time.Time { return row.record.CreatedAt }},
		settled: &rowHeap{kind: settledHeap, key: func(row *row) time.Time { return row.record.UpdatedAt }},
		counts:  map[delivery.Status]map[delivery.Priority]int{},
	}
	for _, status := range delivery.Statuses() {
		r.due[status] = &rowHeap{kind: dueHeap, key: func(row *row) time.Time { return row.record.DueAt }}
		r.counts[status] = map[delivery.Priority]int{}
	}
	return r
}

func (r *records) add(row *row) {
	r.saved++
	row.number = r.saved
	r.byID[row.record.ID] = row
	r.byAge.add(row)
	r.enter(row)
}

func (r *records) remove(row *row) {
	delete(r.byID, row.record.ID)
	r.byAge.remove(row)
	r.leave(row)
}

// moved puts a row whose progress has changed into its new places.
func (r *records) moved(row *row) {
	r.leave(row)
	r.enter(row)
}

func (r *records) enter(row *row) {
	progress := &row.record.Progress
	row.status = progress.Status
	r.counts[row.status][row.record.Priority]++
	if !progress.DueAt.IsZero() {
		r.due[row.status].push(row)
	}
	if row.status == delivery.StatusPending {
		r.pending.push(row)
	}
	if row.status.Final() || row.status == delivery.StatusFailed {
		r.settled.push(row)
	}
	if row.token = progress.ClaimedBy; row.token != "" {
		row.claim = len(r.claims[row.token])
		r.claims[row.token] = append(r.claims[row.token], row)
	}
}

func (r *records) leave(row *row) {
	counts := r.counts[row.status]
	if counts[row.record.Priority]--; counts[row.record.Priority] == 0 {
		delete(counts, row.record.Priority)
	}
	for _, place := range row.places {
		if place.heap != nil {
			place.heap.remove(row)
		}
	}
	if row.token == "" {
		return
	}
	claims := r.claims[row.token]
	last := len(claims) - 1
	claims[row.claim] = claims[last]
	claims[row.claim].claim = row.claim
	claims[last] = nil
	r.claims[row.token] = claims[:last]
	if last == 0 {
		delete(r.claims, row.token)
	}
}

// postponed puts a row whose DueAt alone has changed into its new place.
func (r *records) postponed(row *row) {
	if heap := row.places[dueHeap].heap; heap != nil {
		heap.remove(row)
	}
	if !row.record.DueAt.IsZero() {
		r.due[row.status].push(row)
	}
}

// claim returns the records as they are in the store.
func (r *records) claim(claim delivery.Claim, until time.Time) []delivery.Record {
	var claimed []delivery.Record
	var rows []*row
	due := r.due[claim.Status]
	for len(rows) < claim.Limit {
		first := due.first()
		if first == nil || first.record.DueAt.After(claim.Now) {
			break
		}
		due.remove(first)
		rows = append(rows, first)
	}
	if len(rows) > 0 {
		claimed = make([]delivery.Record, len(rows))
	}
	for i, row := range rows {
		row.record.ClaimedBy, row.record.DueAt = claim.Token, until
		r.moved(row)
		claimed[i] = row.record
	}
	return claimed
}

func (r *records) stats() delivery.RecordStats {
	stats := delivery.RecordStats{Total: len(r.byID), Counts: map[delivery.Status]map[delivery.Priority]int{}}
	for status, counts := range r.counts {
		if len(counts) > 0 {
			stats.Counts[status] = maps.Clone(counts)
		}
	}
	if first := r.pending.first(); first != nil {
		stats.OldestPending = first.record.CreatedAt
	}
	return stats
}

// isolateRecord cuts what the record shares with whoever gave it.
func isolateRecord(record *delivery.Record) {
	record.Body = bytes.Clone(record.Body)
	record.Headers = maps.Clone(record.Headers)
	record.History = slices.Clone(record.History)
}

// wholeMicroseconds makes all times of a record that is not shared what it is
// kept with.
func wholeMicroseconds(record *delivery.Record) {
	for _, at := range []*time.Time{
		&record.CreatedAt, &record.NotBefore, &record.ExpiresAt,
		&record.NextRetryAt, &record.LastRetryAt, &record.SentAt, &record.DeliveredAt, &record.ReadAt,
		&record.AckDeadline, &record.DueAt, &record.UpdatedAt,
	} {
		*at = microseconds(*at)
	}
	for i := range record.History {
		record.History[i].At = microseconds(record.History[i].At)
	}
}

func microseconds(at time.Time) time.Time { return at.UTC().Truncate(time.Microsecond) }
