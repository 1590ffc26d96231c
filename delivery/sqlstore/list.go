package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/esh3artech/barid/delivery"
)

// List implements delivery.Store.
func (s *Store) List(ctx context.Context, q delivery.RecordQuery) (delivery.RecordPage, error) {
	scan, err := q.Scan()
	if err != nil {
		return delivery.RecordPage{}, err
	}
	text, args := s.records.listQuery(&scan)
	page := delivery.RecordPage{Records: make([]delivery.Record, 0, min(scan.Limit, delivery.DefaultRecordLimit))}
	err = s.reader.read(ctx, "list", func(q querier) error {
		page.Records = page.Records[:0]
		err := query(ctx, q, func(answer scanner) error {
			var r delivery.Record
			err := answer.Scan(append(intoMessage(&r.Message), intoProgress(&r.Progress)...)...)
			page.Records = append(page.Records, r)
			return err
		}, text, args...)
		if err != nil {
			return err
		}
		all := make([]*delivery.Progress, len(page.Records))
		for i := range page.Records {
			all[i] = &page.Records[i].Progress
		}
		return s.records.fillDueTimes(ctx, q, all)
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

// listQuery asks for one record more than the page has, to learn whether there
// is another page.
func (t *recordTables) listQuery(scan *delivery.RecordScan) (text string, args []any) {
	c, by := t.conditions(&scan.RecordFilter)
	beyond, direction := "<", "DESC"
	if scan.Order == delivery.OldestFirst {
		beyond, direction = ">", "ASC"
	}
	if scan.After.ID != "" {
		c.add("("+by+".created_at, "+by+".id) "+beyond+" (%s, %s)", scan.After.At.UnixMicro(), []byte(scan.After.ID))
	}
	text = fmt.Sprintf("SELECT %s, %s FROM %s AS m JOIN %s AS p ON p.id = m.id%s ORDER BY %s.created_at %s, %[6]s.id %[7]s LIMIT %[8]d",
		named("m", messageColumns[:len(messageColumns)-1]), named("p", progressColumns[1:]),
		t.messages.name, t.progress.name, c.where(), by, direction, scan.Limit+1)
	return text, c.args
}

// conditions are the conditions of a filter on the messages, whose alias is m,
// and the progress, whose alias is p. by is the alias that has the order of the
// list: that of the messages' index, or of the index of rare statuses.
func (t *recordTables) conditions(filter *delivery.RecordFilter) (c *conditions, by string) {
	c = &conditions{dialect: t.dialect}
	by = "m"
	if filter.Queue != "" {
		c.add("p.queue = %s", []byte(filter.Queue))
	}
	if len(filter.Statuses) > 0 {
		quoted := make([]string, len(filter.Statuses))
		rare := true
		for i, status := range filter.Statuses {
			quoted[i] = "'" + string(status) + "'" // Scan has checked that it is one of the statuses
			rare = rare && strings.Contains(rareStatuses, quoted[i])
		}
		c.add("p.status IN (" + strings.Join(quoted, ", ") + ")")
		if rare && filter.Recipient == "" && filter.IdempotencyKey == "" {
			by = "p"
			c.add("p.status IN (" + rareStatuses + ")")
		}
	}
	if filter.Recipient != "" {
		c.add("m.recipient = %s", []byte(filter.Recipient))
	}
	if filter.Type != "" {
		c.add("m.type = %s", []byte(filter.Type))
	}
	if key := []byte(filter.IdempotencyKey); len(key) > 0 {
		c.add("m.id IN (SELECT id FROM "+t.messages.name+" WHERE idempotency_key = %s UNION ALL SELECT id FROM "+
			t.messages.name+" WHERE idempotency_key IS NULL AND id = %s)", key, key)
	}
	if len(filter.Priorities) > 0 {
		numbers := make([]string, len(filter.Priorities))
		for i, priority := range filter.Priorities {
			numbers[i] = strconv.Itoa(int(priority))
		}
		c.add("m.priority IN (" + strings.Join(numbers, ", ") + ")")
	}
	if !filter.Since.IsZero() {
		c.add(by+".created_at >= %s", microsUp(filter.Since))
	}
	if !filter.Until.IsZero() {
		c.add(by+".created_at < %s", microsUp(filter.Until))
	}
	return c, by
}
