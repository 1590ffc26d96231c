package sqlstore

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// A process renews its claim on everything that waits in it again and again. To
// write each record every time would cost as much as to handle it. So a renewal
// moves records under a lease, once: their due_at is underLease, and they are due
// when the lease of their token and queue ends, which is one row. When it has ended
// the next claim gives them a due_at of their own, at the lease's end.

// underLease is later than any due time.
const underLease = math.MaxInt64

// leasedStatuses are those of records that a renewal renews.
var leasedStatuses = [...]delivery.Status{delivery.StatusPending, delivery.StatusQueued} //nolint:gochecknoglobals // a constant

const (
	// endedLeases is how many leases a claim ends at most, and leaseChunk of how many
	// records at once, so that others don't wait long.
	endedLeases = 10
	leaseChunk  = 1000
	// leaseChunks is how many chunks there are at most before a claim takes what is
	// due by then.
	leaseChunks = 2 * delivery.MaxClaim / leaseChunk
)

// renewCall is one call of Renew on its way through the writer.
type renewCall struct {
	queue, token string
	until        time.Time
}

// Renew implements delivery.Store. It writes each record once, at its first
// renewal, and one row from then on.
func (s *Store) Renew(ctx context.Context, queue, token string, until time.Time) error {
	if err := s.usable(); err != nil {
		return err
	}
	if token == "" || queue == "" {
		return ctx.Err() // which no record is claimed by, or has
	}
	if err := checkQueue("queue", queue); err != nil {
		return err
	}
	if len(token) > maxIndexedBytes {
		return &delivery.TooLargeError{Field: "token", Size: len(token), Limit: maxIndexedBytes}
	}
	return s.writer.execute(ctx, s.renew, size{rows: 1}, &renewCall{queue: queue, token: token, until: until})
}

// runRenewals locks the records in the order of their IDs, as updates do.
func (t *recordTables) runRenewals(ctx context.Context, q querier, calls []*renewCall) error {
	return t.renewClaims(ctx, q, calls, t.dialect.rowLocks)
}

// runFreeRenewals leaves out records that others keep locked, so that the other
// claims don't end because of them. Nobody can claim these while they are locked.
func (t *recordTables) runFreeRenewals(ctx context.Context, q querier, calls []*renewCall) error {
	return t.renewClaims(ctx, q, calls, t.dialect.skipLocked)
}

func (t *recordTables) renewClaims(ctx context.Context, q querier, calls []*renewCall, locks string) error {
	for _, c := range calls {
		queue, token := []byte(c.queue), []byte(c.token)
		if _, err := q.ExecContext(ctx, t.setLease(), token, queue, c.until.UnixMicro()); err != nil {
			return err
		}
		for _, statement := range t.moveUnderLease(locks) {
			if _, err := q.ExecContext(ctx, statement, token, queue); err != nil {
				return err
			}
		}
	}
	return nil
}

// setLease sets until when the lease of a token and a queue lasts.
func (t *recordTables) setLease() string {
	return fmt.Sprintf("INSERT INTO %s (token, queue, until) VALUES (%s, %s, %s) ON CONFLICT (token, queue) DO UPDATE SET until = excluded.until",
		t.leases, t.dialect.param(1), t.dialect.param(2), t.dialect.param(3))
}

// moveUnderLease are statements that move the records of a token and a queue under
// their lease, those with a due time and those without one. They don't read what is
// under it.
func (t *recordTables) moveUnderLease(locks string) []string {
	move := func(due string) string {
		return fmt.Sprintf("UPDATE %s SET due_at = %d WHERE id IN (%s AND status IN ('%s', '%s') AND due_at %s ORDER BY id%s)",
			t.progress.name, int64(underLease), t.claimedBy(), leasedStatuses[0], leasedStatuses[1], due, locks)
	}
	return []string{move(fmt.Sprintf("< %d", int64(underLease))), move("IS NULL")}
}

// claimedBy finds records by who has claimed them: the parameters are the token and
// the queue.
func (t *recordTables) claimedBy() string {
	return fmt.Sprintf("SELECT id FROM %s WHERE claimed_by = %s AND queue = %s", t.progress.name, t.dialect.param(1), t.dialect.param(2))
}

func (w *watchers) renewalsCommitted(calls []*renewCall) {
	var due time.Time
	for _, c := range calls {
		due = earliest(due, c.until)
	}
	w.tell(due)
}

// endLeases gives the records with the status, whose leases have ended, a due time
// of their own. It returns whether there may be more of them.
func (t *recordTables) endLeases(ctx context.Context, q querier, queue []byte, status delivery.Status, now int64) (more bool, err error) {
	if status != leasedStatuses[0] && status != leasedStatuses[1] {
		return false, nil
	}
	var tokens [][]byte
	var ends []int64
	err = query(ctx, q, func(answer scanner) error {
		var token intoBytes
		var until int64
		err := answer.Scan(&token, &until)
		tokens, ends = append(tokens, token), append(ends, until)
		return err
	}, t.ended(), queue, now)
	var moved, dropped int64
	for i := 0; i < len(tokens) && err == nil && moved < leaseChunk; i++ {
		var n int64
		if n, err = affected(q.ExecContext(ctx, t.moveFromLease(status), tokens[i], queue, ends[i])); err != nil {
			break
		}
		moved += n
		n, err = affected(q.ExecContext(ctx, t.dropLease(), tokens[i], queue))
		dropped += n
	}
	return moved >= leaseChunk || len(tokens) == endedLeases && moved+dropped > 0, err
}

// ended finds leases of a queue that have ended, and that nobody is renewing.
func (t *recordTables) ended() string {
	return fmt.Sprintf("SELECT token, until FROM %s WHERE queue = %s AND until <= %s ORDER BY until LIMIT %d%s",
		t.leases, t.dialect.param(1), t.dialect.param(2), endedLeases, t.dialect.skipLocked)
}

// moveFromLease gives a chunk of the records under a lease its end as their due time.
func (t *recordTables) moveFromLease(status delivery.Status) string {
	return fmt.Sprintf("UPDATE %s SET due_at = %s WHERE id IN (%s AND %s LIMIT %d%s)",
		t.progress.name, t.dialect.param(3), t.claimedBy(), isUnderLease(status), leaseChunk, t.dialect.skipLocked)
}

// dropLease deletes a lease that no record is under.
func (t *recordTables) dropLease() string {
	return fmt.Sprintf("DELETE FROM %s WHERE token = %s AND queue = %s AND NOT EXISTS (%s AND %s) AND NOT EXISTS (%[4]s AND %[6]s)",
		t.leases, t.dialect.param(1), t.dialect.param(2), t.claimedBy(), isUnderLease(leasedStatuses[0]), isUnderLease(leasedStatuses[1]))
}

func isUnderLease(status delivery.Status) string {
	return fmt.Sprintf("status = '%s' AND due_at = %d", status, int64(underLease))
}

// firstEnd is the end of the lease that ends first, of those of the queue that have
// records with the status under them. Of each it asks for one record, in the order of
// the index: otherwise PostgreSQL might look for it in the whole table.
func (t *recordTables) firstEnd(status delivery.Status) string {
	return fmt.Sprintf("SELECT MIN(until) AS due FROM %s AS l WHERE l.queue = %s AND "+
		"(SELECT 1 FROM %s AS p WHERE p.claimed_by = l.token AND p.queue = l.queue AND p.status = '%s' AND p.due_at >= %d ORDER BY p.due_at LIMIT 1) IS NOT NULL",
		t.leases, t.dialect.param(1), t.progress.name, status, int64(underLease))
}

// fillDueTimes gives the progress of records under a lease the lease's end as their
// due time.
func (t *recordTables) fillDueTimes(ctx context.Context, q querier, all []*delivery.Progress) error {
	type lease struct{ token, queue string }
	under := map[lease][]*delivery.Progress{}
	asked := map[string]bool{}
	var tokens [][]byte
	for _, p := range all {
		if p.DueAt.UnixMicro() != underLease {
			continue
		}
		p.DueAt = time.Time{}
		under[lease{p.ClaimedBy, p.Queue}] = append(under[lease{p.ClaimedBy, p.Queue}], p)
		if !asked[p.ClaimedBy] {
			asked[p.ClaimedBy] = true
			tokens = append(tokens, []byte(p.ClaimedBy))
		}
	}
	if len(tokens) == 0 {
		return nil
	}
	return t.dialect.queryByKeys(ctx, q, t.leasesOf, tokens, func(answer scanner) error {
		var token, queue intoString
		var until intoTime
		err := answer.Scan(&token, &queue, &until)
		for _, p := range under[lease{string(token), string(queue)}] {
			p.DueAt = time.Time(until)
		}
		return err
	})
}
