package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Stats implements delivery.Store. It reads the progress of all records.
func (s *Store) Stats(ctx context.Context) (delivery.RecordStats, error) {
	var stats delivery.RecordStats
	text := fmt.Sprintf("SELECT status, priority, COUNT(*), MIN(created_at) FROM %s GROUP BY status, priority", s.records.progress.name)
	err := s.reader.read(ctx, "stats", func(q querier) error {
		stats = delivery.RecordStats{Counts: make(map[delivery.Status]map[delivery.Priority]int)}
		return query(ctx, q, func(answer scanner) error {
			var status delivery.Status
			var priority delivery.Priority
			var count int
			var oldest time.Time
			if err := answer.Scan((*intoStatus)(&status), (*intoPriority)(&priority), (*intoInt)(&count), (*intoTime)(&oldest)); err != nil {
				return err
			}
			if stats.Counts[status] == nil {
				stats.Counts[status] = make(map[delivery.Priority]int)
			}
			stats.Counts[status][priority] = count
			stats.Total += count
			if status == delivery.StatusPending {
				stats.OldestPending = earliest(stats.OldestPending, oldest)
			}
			return nil
		}, text)
	})
	return stats, err
}
