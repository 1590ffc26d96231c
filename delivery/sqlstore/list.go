package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// List implements delivery.Store.
func (s *Store) List(ctx context.Context, q delivery.RecordQuery) (delivery.RecordPage, error) {
	scan, err := q.Scan()
	if err != nil {
		return delivery.RecordPage{}, err
	}
	text, args := s.listQuery(&scan)
	page := delivery.RecordPage{Records: make([]delivery.Record, 0, min(scan.Limit, delivery.DefaultRecordLimit))}
	err = s.read(ctx, "list", func(q querier) error {
		page.Records = page.Records[:0]
		return query(ctx, q, func(answer scanner) error {
			var r delivery.Record
			err := answer.Scan(append(intoMessage(&r.Message), intoProgress(&r.Progress)...)...)
			page.Records = append(page.Records, r)
			return err
		}, text, args...)
	})
	if err != nil {
		return delivery.RecordPage{}, err
	}
	if len(page.Records) > scan.Limit {
		page.Records = page.Records[:scan.Limit]
		page.Next = scan.Cursor(&page.Records[scan.Limit-1])
	}
	return page, nil
}

// conditions collects the parts of a WHERE.
type conditions struct {
	dialect *dialect
	parts   []string
	args    []any
}

// add adds a part, in which each %s is the next parameter.
func (c *conditions) add(part string, args ...any) {
	params := make([]any, len(args))
	for i := range args {
		params[i] = c.dialect.param(len(c.args) + i + 1)
	}
	c.parts = append(c.parts, fmt.Sprintf(part, params...))
	c.args = append(c.args, args...)
}

// where is the WHERE, or nothing.
func (c *conditions) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.parts, " AND ")
}

// listQuery asks for one record more than the page has, to know whether there is
// another page.
func (s *Store) listQuery(scan *delivery.RecordScan) (text string, args []any) {
	c := &conditions{dialect: s.dialect}
	// The order is that of the messages, or of the index of rare statuses.
	by := "m"
	if len(scan.Statuses) > 0 {
		quoted := make([]string, len(scan.Statuses))
		rare := true
		for i, status := range scan.Statuses {
			quoted[i] = "'" + string(status) + "'" // one of the statuses: Scan has checked it
			rare = rare && strings.Contains(rareStatuses, quoted[i])
		}
		c.add("p.status IN (" + strings.Join(quoted, ", ") + ")")
		if rare && scan.Recipient == "" && scan.IdempotencyKey == "" {
			by = "p"
			c.add("p.status IN (" + rareStatuses + ")")
		}
	}
	if scan.Recipient != "" {
		c.add("m.recipient = %s", []byte(scan.Recipient))
	}
	if scan.Type != "" {
		c.add("m.type = %s", []byte(scan.Type))
	}
	if key := []byte(scan.IdempotencyKey); len(key) > 0 {
		c.add("(m.idempotency_key = %s OR m.idempotency_key IS NULL AND m.id = %s)", key, key)
	}
	if len(scan.Priorities) > 0 {
		numbers := make([]string, len(scan.Priorities))
		for i, priority := range scan.Priorities {
			numbers[i] = strconv.Itoa(int(priority))
		}
		c.add("m.priority IN (" + strings.Join(numbers, ", ") + ")")
	}
	if !scan.Since.IsZero() {
		c.add(by+".created_at >= %s", microsUp(scan.Since))
	}
	if !scan.Until.IsZero() {
		c.add(by+".created_at < %s", microsUp(scan.Until))
	}
	beyond, direction := "<", "DESC"
	if scan.Order == delivery.OldestFirst {
		beyond, direction = ">", "ASC"
	}
	if scan.After.ID != "" {
		c.add("("+by+".created_at, "+by+".id) "+beyond+" (%s, %s)", scan.After.At.UnixMicro(), []byte(scan.After.ID))
	}
	text = fmt.Sprintf("SELECT %s, %s FROM %s AS m JOIN %s AS p ON p.id = m.id%s ORDER BY %s.created_at %s, %[6]s.id %[7]s LIMIT %[8]d",
		named("m", messageColumns[:len(messageColumns)-1]), named("p", progressColumns[1:]),
		s.records.messages.name, s.records.progress.name, c.where(), by, direction, scan.Limit+1)
	return text, c.args
}

// Stats implements delivery.Store. It reads the progress of all records.
func (s *Store) Stats(ctx context.Context) (delivery.RecordStats, error) {
	var stats delivery.RecordStats
	text := fmt.Sprintf("SELECT status, priority, COUNT(*), MIN(created_at) FROM %s GROUP BY status, priority", s.records.progress.name)
	err := s.read(ctx, "stats", func(q querier) error {
		stats = delivery.RecordStats{Counts: make(map[delivery.Status]map[delivery.Priority]int)}
		return query(ctx, q, func(answer scanner) error {
			var status delivery.Status
			var priority delivery.Priority
			var count int
			var oldest time.Time
			if err := answer.Scan((*intoStatus)(&status), (*intoPrio)(&priority), (*intoInt)(&count), (*intoTime)(&oldest)); err != nil {
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
