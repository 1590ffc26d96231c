package sqlstore

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	sweepEvery = time.Second
	sweepLeast = 1000
)

// sweeper deletes what has expired from a table with a column expires_at, in
// small parts by those who write, so that it needs no goroutine, and nobody
// waits for a large one.
type sweeper struct {
	table, key string
	every      time.Duration

	mu      sync.Mutex
	next    time.Time
	written int // since the last sweep
}

// sweep deletes what expired by now, in microseconds, at most twice as much as
// was written since the last time or sweepLeast.
func (s *sweeper) sweep(ctx context.Context, q querier, d *dialect, now int64, writes int) error {
	s.mu.Lock()
	s.written += writes
	due := !time.Now().Before(s.next)
	limit := max(sweepLeast, 2*s.written)
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
