package memory

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// recordIndex holds the records of a Store, and finds them by ID, age, claim,
// due time and status. All of its methods are called under the store's lock.
type recordIndex struct {
	saved  uint64 // how many records were ever saved
	byID   map[string]*storedRecord
	byAge  sortedList
	claims map[string][]*storedRecord // by ClaimedBy

	due     map[delivery.Status]*timeHeap // records with a DueAt, by DueAt
	pending *timeHeap                     // pending records, by CreatedAt
	settled *timeHeap                     // records that may be purged, by UpdatedAt

	counts map[delivery.Status]map[delivery.Priority]int
}

// storedRecord is a record with its positions in the index. Only the record's
// progress ever changes, and no byte that one of its slices or maps holds, so
// that a copy may be read after the lock is released.
type storedRecord struct {
	record delivery.Record
	// number is the order of saving, and orders records that are equal otherwise.
	number uint64
	// status is the one that the record is counted under.
	status delivery.Status
	// token and claim are the record's position in claims.
	token string
	claim int
	// places are the record's positions in heaps, by the heap's kind.
	places [heapKinds]place
}

func newRecordIndex() *recordIndex {
	r := &recordIndex{
		byID:    map[string]*storedRecord{},
		claims:  map[string][]*storedRecord{},
		due:     map[delivery.Status]*timeHeap{},
		pending: &timeHeap{kind: pendingHeap, key: func(stored *storedRecord) time.Time { return stored.record.CreatedAt }},
		settled: &timeHeap{kind: settledHeap, key: func(stored *storedRecord) time.Time { return stored.record.UpdatedAt }},
		counts:  map[delivery.Status]map[delivery.Priority]int{},
	}
	for _, status := range delivery.Statuses() {
		r.due[status] = &timeHeap{kind: dueHeap, key: func(stored *storedRecord) time.Time { return stored.record.DueAt }}
		r.counts[status] = map[delivery.Priority]int{}
	}
	return r
}

func (r *recordIndex) add(stored *storedRecord) {
	r.saved++
	stored.number = r.saved
	r.byID[stored.record.ID] = stored
	r.byAge.add(stored)
	r.enter(stored)
}

func (r *recordIndex) remove(stored *storedRecord) {
	delete(r.byID, stored.record.ID)
	r.byAge.remove(stored)
	r.leave(stored)
}

// reindex moves a record whose progress has changed to its new positions.
func (r *recordIndex) reindex(stored *storedRecord) {
	r.leave(stored)
	r.enter(stored)
}

func (r *recordIndex) enter(stored *storedRecord) {
	progress := &stored.record.Progress
	stored.status = progress.Status
	r.counts[stored.status][stored.record.Priority]++
	if !progress.DueAt.IsZero() {
		r.due[stored.status].push(stored)
	}
	if stored.status == delivery.StatusPending {
		r.pending.push(stored)
	}
	if stored.status.Final() || stored.status == delivery.StatusFailed {
		r.settled.push(stored)
	}
	if stored.token = progress.ClaimedBy; stored.token != "" {
		stored.claim = len(r.claims[stored.token])
		r.claims[stored.token] = append(r.claims[stored.token], stored)
	}
}

func (r *recordIndex) leave(stored *storedRecord) {
	counts := r.counts[stored.status]
	if counts[stored.record.Priority]--; counts[stored.record.Priority] == 0 {
		delete(counts, stored.record.Priority)
	}
	for _, place := range stored.places {
		if place.heap != nil {
			place.heap.remove(stored)
		}
	}
	if stored.token == "" {
		return
	}
	claims := r.claims[stored.token]
	last := len(claims) - 1
	claims[stored.claim] = claims[last]
	claims[stored.claim].claim = stored.claim
	claims[last] = nil
	r.claims[stored.token] = claims[:last]
	if last == 0 {
		delete(r.claims, stored.token)
	}
}

// reschedule moves a record of which only the DueAt has changed to its new
// position.
func (r *recordIndex) reschedule(stored *storedRecord) {
	if heap := stored.places[dueHeap].heap; heap != nil {
		heap.remove(stored)
	}
	if !stored.record.DueAt.IsZero() {
		r.due[stored.status].push(stored)
	}
}

// claim returns the claimed records, which share their bytes with those in the
// index.
func (r *recordIndex) claim(claim delivery.Claim, until time.Time) []delivery.Record {
	var claimed []delivery.Record
	var taken []*storedRecord
	due := r.due[claim.Status]
	for len(taken) < claim.Limit {
		first := due.first()
		if first == nil || first.record.DueAt.After(claim.Now) {
			break
		}
		due.remove(first)
		taken = append(taken, first)
	}
	if len(taken) > 0 {
		claimed = make([]delivery.Record, len(taken))
	}
	for i, one := range taken {
		one.record.ClaimedBy, one.record.DueAt = claim.Token, until
		r.reindex(one)
		claimed[i] = one.record
	}
	return claimed
}

func (r *recordIndex) stats() delivery.RecordStats {
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

// isolateRecord copies what the record shares with its caller.
func isolateRecord(record *delivery.Record) {
	record.Body = bytes.Clone(record.Body)
	record.Headers = maps.Clone(record.Headers)
	record.History = slices.Clone(record.History)
}

// wholeMicroseconds cuts all times of a record that is not shared to
// microseconds.
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
