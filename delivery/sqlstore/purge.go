package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// purgeCall is one part of a call of Purge on its way through the writer.
type purgeCall struct {
	queue  string
	before int64
	limit  int
	purged int
}

// purgeChunk is how many records a transaction deletes at most, so that others
// don't wait long.
const purgeChunk = 1000

// Purge implements delivery.Store.
func (s *Store) Purge(ctx context.Context, queue string, before time.Time, limit int) (int, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	if queue == "" {
		return 0, errors.Join(ctx.Err(), &delivery.InvalidError{Field: "queue", Problem: "is empty"})
	}
	total := 0
	for total < limit {
		c := &purgeCall{queue: queue, before: microsUp(before), limit: min(limit-total, purgeChunk)}
		if err := s.writer.execute(ctx, s.purge, size{rows: 1}, c); err != nil {
			return total, err
		}
		total += c.purged
		if c.purged < c.limit {
			break
		}
	}
	return total, ctx.Err()
}

// purgeable finds what may be purged: the parameters are the queue, the time and
// the limit.
func (t *recordTables) purgeable() string {
	return fmt.Sprintf("SELECT id FROM %s WHERE queue = %s AND status IN (%s) AND updated_at < %s ORDER BY updated_at LIMIT %s%s",
		t.progress.name, t.dialect.param(1), endedStatuses, t.dialect.param(2), t.dialect.param(3), t.dialect.skipLocked)
}

func (t *recordTables) runPurges(ctx context.Context, q querier, calls []*purgeCall) error {
	for _, c := range calls {
		ids, err := queryKeys(ctx, q, t.purgeable(), []byte(c.queue), c.before, int64(c.limit))
		if err != nil {
			return err
		}
		c.purged = len(ids)
		if len(ids) == 0 {
			continue
		}
		for _, t := range []*table{t.progress, t.messages} {
			if err := t.dialect.deleteByKeys(ctx, q, t.name, "id", ids); err != nil {
				return err
			}
		}
	}
	return nil
}
