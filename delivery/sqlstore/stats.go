package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Stats implements delivery.Store. It reads the progress of all records, whatever
// the queue.
func (s *Store) Stats(ctx context.Context, queue string) (delivery.RecordStats, error) {
	var stats delivery.RecordStats
	c := &conditions{dialect: s.dialect}
	if queue != "" {
		c.add("queue = %s", []byte(queue))
	}
	text := fmt.Sprintf("SELECT status, priority, COUNT(*), MIN(created_at), MIN(updated_at) FROM %s%s GROUP BY status, priority", s.records.progress.name, c.where())
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
		}, text, c.args...)
	})
	return stats, err
}
