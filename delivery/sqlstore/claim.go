package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// claimCall is one call of Claim on its way.
type claimCall struct {
	claim   delivery.Claim
	records []delivery.Record
}

// Claim implements delivery.Store. On PostgreSQL it passes by what others are
// changing at the moment.
func (s *Store) Claim(ctx context.Context, claim delivery.Claim) ([]delivery.Record, error) {
	if err := claim.Validate(); err != nil {
		return nil, err
	}
	if len(claim.Token) > maxIndexedBytes {
		return nil, &delivery.TooLargeError{Field: "Claim.Token", Size: len(claim.Token), Limit: maxIndexedBytes}
	}
	c := &claimCall{claim: claim}
	if err := s.writer.perform(ctx, s.claim, 1, c); err != nil {
		return nil, err
	}
	return c.records, nil
}

func (s *Store) runClaims(ctx context.Context, q querier, calls []*claimCall) error {
	for _, c := range calls {
		if err := s.runClaim(ctx, q, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) runClaim(ctx context.Context, q querier, c *claimCall) error {
	c.records = nil
	find := fmt.Sprintf("SELECT id FROM %s WHERE status = '%s' AND due_at <= %s ORDER BY due_at LIMIT %s%s",
		s.records.progress.name, c.claim.Status, s.dialect.param(1), s.dialect.param(2), s.dialect.skipLocked)
	ids, err := queryKeys(ctx, q, find, c.claim.Now.UnixMicro(), int64(c.claim.Limit))
	if err != nil || len(ids) == 0 {
		return err
	}
	claims := make([]row, len(ids))
	at := make(map[string]int, len(ids))
	for i, id := range ids {
		claims[i] = row{id, []byte(c.claim.Token), c.until().UnixMicro()}
		at[string(id)] = i
	}
	if err := s.records.claims.change(ctx, q, claims); err != nil {
		return err
	}
	c.records = make([]delivery.Record, len(ids))
	return s.dialect.fetch(ctx, q, s.records.whole, ids, func(answer scanner) error {
		r, err := scanWhole(answer)
		c.records[at[r.ID]] = r
		return err
	})
}

func (c *claimCall) until() time.Time { return c.claim.Now.Add(c.claim.Lease) }

// queryKeys are the keys that a query answers.
func queryKeys(ctx context.Context, q querier, text string, args ...any) ([][]byte, error) {
	var keys [][]byte
	err := query(ctx, q, func(answer scanner) error {
		var key intoBytes
		err := answer.Scan(&key)
		keys = append(keys, key)
		return err
	}, text, args...)
	return keys, err
}

func (s *Store) claimsCommitted(calls []*claimCall) {
	var due time.Time
	for _, c := range calls {
		if len(c.records) > 0 {
			due = earliest(due, c.until())
		}
	}
	s.watches.tell(due)
}

// renewCall is one call of Renew on its way.
type renewCall struct {
	token   string
	until   time.Time
	renewed int
}

// Renew implements delivery.Store.
func (s *Store) Renew(ctx context.Context, token string, until time.Time) (int, error) {
	if token == "" {
		return 0, ctx.Err()
	}
	c := &renewCall{token: token, until: until}
	if err := s.writer.perform(ctx, s.renew, 1, c); err != nil {
		return 0, err
	}
	return c.renewed, nil
}

// runRenewals locks the records in the order of their IDs, as updates do.
func (s *Store) runRenewals(ctx context.Context, q querier, calls []*renewCall) error {
	text := fmt.Sprintf(`UPDATE %s SET due_at = %s WHERE id IN (
		SELECT id FROM %[1]s WHERE claimed_by = %[3]s AND status IN ('pending', 'queued') ORDER BY id%[4]s)`,
		s.records.progress.name, s.dialect.param(1), s.dialect.param(2), s.dialect.rowLocks)
	for _, c := range calls {
		result, err := q.ExecContext(ctx, text, microsOf(c.until), []byte(c.token))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		c.renewed = int(n)
	}
	return nil
}

func (s *Store) renewalsCommitted(calls []*renewCall) {
	var due time.Time
	for _, c := range calls {
		if c.renewed > 0 {
			due = earliest(due, c.until)
		}
	}
	s.watches.tell(due)
}

// NextDue implements delivery.Store.
func (s *Store) NextDue(ctx context.Context, statuses ...delivery.Status) (time.Time, error) {
	var parts []string
	for _, status := range statuses {
		if status.Valid() {
			parts = append(parts, fmt.Sprintf("SELECT MIN(due_at) AS due FROM %s WHERE status = '%s' AND due_at IS NOT NULL",
				s.records.progress.name, status))
		}
	}
	if len(parts) == 0 {
		return time.Time{}, ctx.Err()
	}
	var due intoTime
	err := s.read(ctx, "next due", func(q querier) error {
		return query(ctx, q, func(answer scanner) error { return answer.Scan(&due) },
			"SELECT MIN(due) FROM ("+strings.Join(parts, " UNION ALL ")+") AS each")
	})
	return time.Time(due), err
}
