package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// claimCall is one call of Claim on its way through the writer.
type claimCall struct {
	claim  delivery.Claim
	rest   [][]byte // when not nil, the keys that are claimed if they are still due
	taken  []claimedRecord
	at     map[string]int // where an ID is among taken
	missed [][]byte       // the keys of records that are due, but locked by others
	free   bool           // of rest, only what is not locked is claimed
	// A patient call claims nothing while more leases have ended than it could end. It
	// has to be repeated then.
	patient, more bool
}

// claimedRecord is a record with the time at which it was due.
type claimedRecord struct {
	record delivery.Record
	due    int64
}

// Claim implements delivery.Store.
//
// On PostgreSQL it first takes the records that nobody else is changing at the
// moment. If they are fewer than the limit, it waits for the others as long as a
// commit takes, and takes those that are still due then. Records that are locked
// for longer are left to a later claim.
func (s *Store) Claim(ctx context.Context, claim delivery.Claim) ([]delivery.Record, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := claim.Validate(); err != nil {
		return nil, err
	}
	if len(claim.Token) > maxIndexedBytes {
		return nil, &delivery.TooLargeError{Field: "Claim.Token", Size: len(claim.Token), Limit: maxIndexedBytes}
	}
	var first *claimCall
	for chunk := 1; first == nil || first.more; chunk++ {
		first = &claimCall{claim: claim, patient: chunk < leaseChunks}
		if err := s.writer.execute(ctx, s.claim, size{rows: 1}, first); err != nil {
			return nil, err
		}
	}
	taken := first.taken
	if len(first.missed) > 0 {
		// After a failure, the next claim takes those that were missed.
		rest := &claimCall{claim: claim, rest: first.missed}
		if err := s.writer.execute(ctx, s.claimRest, size{rows: 1}, rest); err == nil {
			taken = append(taken, rest.taken...)
		} else if len(taken) == 0 {
			return nil, err
		}
	}
	slices.SortStableFunc(taken, func(a, b claimedRecord) int {
		return cmp.Or(cmp.Compare(b.record.Priority, a.record.Priority), cmp.Compare(a.due, b.due))
	})
	records := make([]delivery.Record, len(taken))
	for i := range taken {
		records[i] = taken[i].record
	}
	return records, nil
}

func (t *recordTables) runClaims(ctx context.Context, q querier, calls []*claimCall) error {
	for _, c := range calls {
		if err := t.runClaim(ctx, q, c); err != nil {
			return err
		}
	}
	return nil
}

// runFreeClaims claims those of the rest that nobody has locked.
func (t *recordTables) runFreeClaims(ctx context.Context, q querier, calls []*claimCall) error {
	for _, c := range calls {
		c.free = true
	}
	return t.runClaims(ctx, q, calls)
}

func (t *recordTables) runClaim(ctx context.Context, q querier, c *claimCall) error {
	c.taken, c.at, c.missed, c.more = nil, make(map[string]int), nil, false
	find := t.findDue
	if c.rest != nil {
		find = t.findRest
	}
	if err := find(ctx, q, c); err != nil || len(c.taken) == 0 {
		return err
	}
	return t.takeRecords(ctx, q, c)
}

// findDue finds the records that a claim takes, and those that it misses.
func (t *recordTables) findDue(ctx context.Context, q querier, c *claimCall) error {
	queue, now, limit := []byte(c.claim.Queue), c.claim.Now.UnixMicro(), int64(c.claim.Limit)
	more, err := t.endLeases(ctx, q, queue, c.claim.Status, now)
	if c.more = more && c.patient; err != nil || c.more {
		return err
	}
	if c.claim.DueFirst > 0 {
		err = query(ctx, q, c.take, t.dueFirst(c.claim.Status, t.dialect.skipLocked), queue, now, int64(c.claim.DueFirst))
	}
	if err == nil && c.hasRoom() {
		err = query(ctx, q, c.take, t.byPriority(c.claim.Status, t.dialect.skipLocked), queue, now, limit)
	}
	if err == nil && c.hasRoom() && t.dialect.skipLocked != "" {
		err = query(ctx, q, c.miss, t.byPriority(c.claim.Status, ""), queue, now, limit)
	}
	return err
}

// findRest finds those that an earlier call has missed, if they are still due.
// Waiting for locks is safe only in the order of IDs, and only in a transaction that
// holds no other lock.
func (t *recordTables) findRest(ctx context.Context, q querier, c *claimCall) error {
	locks := t.dialect.rowLocks
	if c.free {
		locks = t.dialect.skipLocked
	}
	return query(ctx, q, c.take, t.isDue(c.claim.Status)+" AND id = ANY($3) ORDER BY id"+locks,
		[]byte(c.claim.Queue), c.claim.Now.UnixMicro(), t.dialect.blobs(c.rest))
}

func (c *claimCall) hasRoom() bool { return len(c.taken) < c.claim.Limit }

// take takes a record that was found, if there is room.
func (c *claimCall) take(answer scanner) error {
	var one claimedRecord
	err := answer.Scan((*intoString)(&one.record.ID), &one.due)
	if _, taken := c.at[one.record.ID]; !taken && c.hasRoom() {
		c.at[one.record.ID] = len(c.taken)
		c.taken = append(c.taken, one)
	}
	return err
}

// miss keeps the key of a record that is due and was not taken.
func (c *claimCall) miss(answer scanner) error {
	var id intoBytes
	var due int64
	err := answer.Scan(&id, &due)
	if _, taken := c.at[string(id)]; !taken {
		c.missed = append(c.missed, id)
	}
	return err
}

// isDue finds the records of a queue that are due: the parameters are the queue
// and the time.
func (t *recordTables) isDue(status delivery.Status) string {
	return fmt.Sprintf("SELECT id, due_at FROM %s WHERE queue = %s AND status = '%s' AND due_at <= %s",
		t.progress.name, t.dialect.param(1), status, t.dialect.param(2))
}

// eachPriority finds, of each priority, the highest first, as many of those that
// are due first as the third parameter says. Each part reads the index in its
// order, and no further than its limit: not what waits for later. Each is locked
// by itself, because a UNION can't be.
func (t *recordTables) eachPriority(status delivery.Status, lock string) string {
	priorities := delivery.Priorities()
	parts := make([]string, 0, len(priorities))
	for i, priority := range priorities {
		parts = append(parts, fmt.Sprintf("SELECT id, due_at FROM (%s AND priority = %d ORDER BY due_at LIMIT %s%s) AS p%d",
			t.isDue(status), priority, t.dialect.param(3), lock, i))
	}
	return strings.Join(parts, " UNION ALL ")
}

// byPriority finds those of the highest priority.
func (t *recordTables) byPriority(status delivery.Status, lock string) string {
	return t.eachPriority(status, lock) + " LIMIT " + t.dialect.param(3)
}

// dueFirst finds those that are due first, whatever the priority.
func (t *recordTables) dueFirst(status delivery.Status, lock string) string {
	return "SELECT id, due_at FROM (" + t.eachPriority(status, lock) + ") AS p ORDER BY due_at LIMIT " + t.dialect.param(3)
}

// takeRecords claims the records that were found, and reads them.
func (t *recordTables) takeRecords(ctx context.Context, q querier, c *claimCall) error {
	ids, claims := make([][]byte, len(c.taken)), make([]row, len(c.taken))
	for i := range c.taken {
		ids[i] = []byte(c.taken[i].record.ID)
		claims[i] = row{ids[i], []byte(c.claim.Token), c.until().UnixMicro()}
	}
	if err := t.claims.change(ctx, q, claims); err != nil {
		return err
	}
	return t.dialect.queryByKeys(ctx, q, t.whole, ids, func(answer scanner) error {
		r, err := scanWhole(answer)
		c.taken[c.at[r.ID]].record = r
		return err
	})
}

func (c *claimCall) until() time.Time { return c.claim.Now.Add(c.claim.Lease) }

func (w *watchers) claimsCommitted(calls []*claimCall) {
	var due time.Time
	for _, c := range calls {
		if len(c.taken) > 0 {
			due = earliest(due, c.until())
		}
	}
	w.tell(due)
}

// NextDue implements delivery.Store.
func (s *Store) NextDue(ctx context.Context, queue string, statuses ...delivery.Status) (time.Time, error) {
	if err := s.usable(); err != nil {
		return time.Time{}, err
	}
	var parts []string
	for _, status := range statuses {
		if !status.Valid() {
			continue
		}
		for _, priority := range delivery.Priorities() {
			parts = append(parts, fmt.Sprintf("SELECT MIN(due_at) AS due FROM %s WHERE queue = %s AND status = '%s' AND priority = %d AND due_at < %d",
				s.records.progress.name, s.dialect.param(1), status, priority, int64(underLease)))
		}
		if slices.Contains(leasedStatuses[:], status) {
			parts = append(parts, s.records.firstEnd(status))
		}
	}
	if len(parts) == 0 {
		return time.Time{}, ctx.Err()
	}
	var due intoTime
	err := s.reader.read(ctx, "next due", func(q querier) error {
		return query(ctx, q, func(answer scanner) error { return answer.Scan(&due) },
			"SELECT MIN(due) FROM ("+strings.Join(parts, " UNION ALL ")+") AS each", []byte(queue))
	})
	return time.Time(due), err
}
