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

// listQuery asks for one record more than the page has, to learn whether there
// is another page.
func (s *Store) listQuery(scan *delivery.RecordScan) (text string, args []any) {
	c := &conditions{dialect: s.dialect}
	// The order is that of the messages' index, or of the index of rare statuses.
	by := "m"
	if len(scan.Statuses) > 0 {
		quoted := make([]string, len(scan.Statuses))
		rare := true
		for i, status := range scan.Statuses {
			quoted[i] = "'" + string(status) + "'" // Scan has checked that it is one of the statuses
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
		c.add("m.id IN (SELECT id FROM "+s.records.messages.name+" WHERE idempotency_key = %s UNION ALL SELECT id FROM "+
			s.records.messages.name+" WHERE idempotency_key IS NULL AND id = %s)", key, key)
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
