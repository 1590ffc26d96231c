package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Stats implements delivery.Store. It reads the progress of all records with one of
// the statuses, whatever the queue, and that of all records where a status is
// delivered or read, or none is given.
func (s *Store) Stats(ctx context.Context, queue string, statuses ...delivery.Status) (delivery.RecordStats, error) {
	var stats delivery.RecordStats
	if err := s.usable(); err != nil {
		return stats, err
	}
	asked := len(statuses) > 0
	statuses = slices.DeleteFunc(slices.Clone(statuses), func(s delivery.Status) bool { return !s.Valid() })
	if asked && len(statuses) == 0 {
		return stats, ctx.Err()
	}
	text, args := s.records.statsQuery(queue, statuses)
	err := s.reader.read(ctx, "stats", func(q querier) error {
		stats = delivery.RecordStats{Counts: make(map[delivery.Status]map[delivery.Priority]int)}
		return query(ctx, q, func(answer scanner) error {
			var status delivery.Status
			var priority delivery.Priority
			var count int
			var created, updated time.Time
			if err := answer.Scan((*intoStatus)(&status), (*intoPriority)(&priority), (*intoInt)(&count), (*intoTime)(&created), (*intoTime)(&updated)); err != nil {
				return err
			}
			if stats.Counts[status] == nil {
				stats.Counts[status] = make(map[delivery.Priority]int)
			}
			stats.Counts[status][priority] = count
			stats.Total += count
			switch status {
			case delivery.StatusPending:
				stats.OldestPending = earliest(stats.OldestPending, created)
			case delivery.StatusQueued:
				stats.OldestQueued = earliest(stats.OldestQueued, updated)
			default:
			}
			return nil
		}, text, args...)
	})
	return stats, err
}

func (t *recordTables) statsQuery(queue string, statuses []delivery.Status) (text string, args []any) {
	c := &conditions{dialect: t.dialect}
	if len(statuses) > 0 {
		all := make([]string, len(statuses))
		for i, status := range statuses {
			all[i] = quoted(status)
		}
		c.add("status IN (" + strings.Join(all, ", ") + ")")
		if areListed(statuses) {
			c.add("status IN (" + listedStatuses + ")") // as the index says it
		}
	}
	if queue != "" {
		c.add("queue = %s", []byte(queue))
	}
	return fmt.Sprintf("SELECT status, priority, COUNT(*), MIN(created_at), MIN(updated_at) FROM %s%s GROUP BY status, priority",
		t.progress.name, c.where()), c.args
}
