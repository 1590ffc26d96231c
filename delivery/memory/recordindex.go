package memory

import (
	"bytes"
	"cmp"
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

	queues map[string]*queueIndex
}

// queueIndex finds the records of one queue.
type queueIndex struct {
	due     map[delivery.Status]dueRecords // records with a DueAt
	pending *timeHeap                      // pending records, by CreatedAt
	queued  *timeHeap                      // queued records, by UpdatedAt
	settled *timeHeap                      // records that may be purged, by UpdatedAt
	counts  map[delivery.Status]map[delivery.Priority]int
}

// storedRecord is a record with its positions in the index. Only the record's
// progress ever changes, and no byte that one of its slices or maps holds, so
// that a copy may be read after the lock is released.
type storedRecord struct {
	record delivery.Record
	// number is the order of saving, and orders records that are equal otherwise.
	number uint64
	// queue and status are those that the record is counted under.
	queue  *queueIndex
	status delivery.Status
	// token and claim are the record's position in claims.
	token string
	claim int
	// places are the record's positions in heaps, by the heap's kind.
	places [heapKinds]place
}

func newRecordIndex() *recordIndex {
	return &recordIndex{
		byID:   map[string]*storedRecord{},
		claims: map[string][]*storedRecord{},
		queues: map[string]*queueIndex{},
	}
}

// queue is the index of a queue, which is made for its first record.
func (r *recordIndex) queue(name string) *queueIndex {
	if q := r.queues[name]; q != nil {
		return q
	}
	q := &queueIndex{
		due:     map[delivery.Status]dueRecords{},
		pending: &timeHeap{kind: waitingHeap, key: func(stored *storedRecord) time.Time { return stored.record.CreatedAt }},
		queued:  &timeHeap{kind: waitingHeap, key: func(stored *storedRecord) time.Time { return stored.record.UpdatedAt }},
		settled: &timeHeap{kind: settledHeap, key: func(stored *storedRecord) time.Time { return stored.record.UpdatedAt }},
		counts:  map[delivery.Status]map[delivery.Priority]int{},
	}
	for _, status := range delivery.Statuses() {
		q.due[status] = dueRecords{}
		q.counts[status] = map[delivery.Priority]int{}
	}
	r.queues[name] = q
	return q
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
	stored.queue, stored.status = r.queue(progress.Queue), progress.Status
	stored.queue.counts[stored.status][stored.record.Priority]++
	if !progress.DueAt.IsZero() {
		stored.queue.due[stored.status].push(stored)
	}
	switch stored.status {
	case delivery.StatusPending:
		stored.queue.pending.push(stored)
	case delivery.StatusQueued:
		stored.queue.queued.push(stored)
	default:
	}
	if stored.status.Final() || stored.status == delivery.StatusFailed {
		stored.queue.settled.push(stored)
	}
	if stored.token = progress.ClaimedBy; stored.token != "" {
		stored.claim = len(r.claims[stored.token])
		r.claims[stored.token] = append(r.claims[stored.token], stored)
	}
}

func (r *recordIndex) leave(stored *storedRecord) {
	counts := stored.queue.counts[stored.status]
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
		stored.queue.due[stored.status].push(stored)
	}
}

// nextDue is the earliest DueAt of a queue's records with the status, or zero.
func (r *recordIndex) nextDue(queue string, status delivery.Status) time.Time {
	q := r.queues[queue]
	if q == nil {
		return time.Time{}
	}
	first := q.due[status].earliest()
	if first == nil {
		return time.Time{}
	}
	return first.record.DueAt
}

// claim returns the claimed records, which share their bytes with those in the
// index.
func (r *recordIndex) claim(claim delivery.Claim, until time.Time) []delivery.Record {
	q := r.queues[claim.Queue]
	if q == nil {
		return nil
	}
	var claimed []delivery.Record
	var taken []*storedRecord
	due := q.due[claim.Status]
	for len(taken) < claim.Limit {
		next := due.highest(claim.Now)
		if next != nil && len(taken) < claim.DueFirst {
			next = due.earliest()
		}
		if next == nil {
			break
		}
		due.remove(next)
		taken = append(taken, next)
	}
	slices.SortStableFunc(taken, func(a, b *storedRecord) int {
		return cmp.Or(cmp.Compare(b.record.Priority, a.record.Priority), a.record.DueAt.Compare(b.record.DueAt))
	})
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

// stats counts the records of a queue, or of all when its name is empty.
func (r *recordIndex) stats(queue string) delivery.RecordStats {
	stats := delivery.RecordStats{Counts: map[delivery.Status]map[delivery.Priority]int{}}
	var pending, queued earliest
	for name, q := range r.queues {
		if queue == "" || queue == name {
			q.addTo(&stats)
			if first := q.pending.first(); first != nil {
				pending.add(first.record.CreatedAt)
			}
			if first := q.queued.first(); first != nil {
				queued.add(first.record.UpdatedAt)
			}
		}
	}
	stats.OldestPending, stats.OldestQueued = pending.at, queued.at
	return stats
}

func (q *queueIndex) addTo(stats *delivery.RecordStats) {
	for status, counts := range q.counts {
		if len(counts) > 0 && stats.Counts[status] == nil {
			stats.Counts[status] = map[delivery.Priority]int{}
		}
		for priority, count := range counts {
			stats.Counts[status][priority] += count
			stats.Total += count
		}
	}
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
