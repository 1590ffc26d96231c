package sqlstore

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	expiryInterval = time.Second
	expiryMinimum  = 1000
)

// expiry deletes the expired rows of a table that has a column expires_at.
// Transactions that write do it in small parts, so that it needs no goroutine,
// and no transaction takes long because of it.
type expiry struct {
	table, key string
	every      time.Duration

	mu      sync.Mutex
	next    time.Time
	written int // rows, since the last deletion
}

// deleteExpired deletes rows that expired by now, in microseconds, once per
// interval. It deletes at most twice as many as were written since the last
// time, or expiryMinimum.
func (s *expiry) deleteExpired(ctx context.Context, q querier, d *dialect, now int64, writes int) error {
	s.mu.Lock()
	s.written += writes
	due := !time.Now().Before(s.next)
	limit := max(expiryMinimum, 2*s.written)
	if due {
		s.next, s.written = time.Now().Add(s.every), 0
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	_, err := q.ExecContext(ctx, fmt.Sprintf(
		"DELETE FROM %[1]s WHERE %[2]s IN (SELECT %[2]s FROM %[1]s WHERE expires_at <= %[3]s ORDER BY expires_at LIMIT %[4]s%[5]s)",
		s.table, s.key, d.param(1), d.param(2), d.skipLocked), now, int64(limit))
	return err
}
