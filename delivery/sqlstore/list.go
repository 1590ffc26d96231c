package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/esh3artech/barid/delivery"
)

// List implements delivery.Store. It reads no more than about a page of records where
// the filter has a recipient, a type, an idempotency key or statuses that are neither
// delivered nor read, and nothing else that most of those don't fit. Otherwise it
// reads records by their age until the page is full: with a filter that few records
// fit, by priority or by a queue among others, that is all of them, for as long as
// Config.Timeout on PostgreSQL. Since and Until bound what is read.
func (s *Store) List(ctx context.Context, q delivery.RecordQuery) (delivery.RecordPage, error) {
	if err := s.usable(); err != nil {
		return delivery.RecordPage{}, err
	}
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
// is another page. Of several statuses that have an index each is asked for by
// itself, in the index's order, so that no more is read than a page of each.
func (t *recordTables) listQuery(scan *delivery.RecordScan) (text string, args []any) {
	statuses, by := scan.Statuses, "m"
	if len(statuses) > 0 && scan.Recipient == "" && scan.IdempotencyKey == "" && areListed(statuses) {
		by = "p"
	}
	beyond, order := "<", "created_at DESC, %[1]sid DESC"
	if scan.Order == delivery.OldestFirst {
		beyond, order = ">", "created_at, %[1]sid"
	}
	c := t.conditions(&scan.RecordFilter, by)
	if scan.After.ID != "" {
		c.add("("+by+".created_at, "+by+".id) "+beyond+" (%s, %s)", scan.After.At.UnixMicro(), []byte(scan.After.ID))
	}
	ordered := func(text, alias string) string {
		return text + fmt.Sprintf(" ORDER BY %[1]s"+order+" LIMIT %[2]d", alias, scan.Limit+1)
	}
	text = fmt.Sprintf("SELECT %s, %s FROM %s AS m JOIN %s AS p ON p.id = m.id",
		named("m", messageColumns[:len(messageColumns)-1]), named("p", progressColumns[1:]), t.messages.name, t.progress.name)
	if by == "m" {
		if len(statuses) > 0 {
			all := make([]string, len(statuses))
			for i, status := range statuses {
				all[i] = quoted(status)
			}
			c.add("p.status IN (" + strings.Join(all, ", ") + ")")
		}
		return ordered(text+c.where(), "m."), c.args
	}
	statuses = slices.Compact(slices.Sorted(slices.Values(statuses)))
	parts := make([]string, len(statuses))
	c.add("p.status IN (" + listedStatuses + ")") // as the index says it
	for i, status := range statuses {
		parts[i] = fmt.Sprintf("SELECT * FROM (%s) AS p%d", ordered(text+c.where()+" AND p.status = "+quoted(status), "p."), i)
	}
	if len(parts) == 1 {
		return parts[0], c.args
	}
	return ordered("SELECT * FROM ("+strings.Join(parts, " UNION ALL ")+") AS each", ""), c.args
}

// areListed returns whether all statuses are in listedStatuses.
func areListed(statuses []delivery.Status) bool {
	return !slices.ContainsFunc(statuses, func(s delivery.Status) bool { return !strings.Contains(listedStatuses, quoted(s)) })
}

// quoted is a status, which has been checked to be one, in SQL.
func quoted(status delivery.Status) string { return "'" + string(status) + "'" }

// conditions are the conditions of a filter, but for the statuses, on the messages,
// whose alias is m, and the progress, whose alias is p. by is the alias that has the
// order of the list: that of the messages' indexes, or of the index of statuses.
func (t *recordTables) conditions(filter *delivery.RecordFilter, by string) *conditions {
	c := &conditions{dialect: t.dialect}
	if filter.Queue != "" {
		c.add("p.queue = %s", []byte(filter.Queue))
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
	return c
}
