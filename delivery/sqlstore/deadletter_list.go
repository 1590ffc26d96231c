package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// conditions are the conditions of a filter on the table of heads, whose alias
// is d.
func (l *deadLetterTables) conditions(filter *dlq.Filter) *conditions {
	where := &conditions{dialect: l.heads.dialect}
	// SQLite does not know how many entries have which value. The fields stand in
	// the order in which they most likely have the fewest, and the index of the
	// first one is used: a plus sign keeps the indexes of the others from being
	// used (SQLite documentation, "The SQLite Query Optimizer Overview").
	sign := ""
	for _, field := range []struct{ column, value string }{
		{"recipient", filter.Recipient}, {"fingerprint", filter.Fingerprint}, {"source", filter.Source},
		{"type", filter.Type}, {"reason", string(filter.Reason)},
	} {
		if field.value == "" {
			continue
		}
		where.add(sign+"d."+field.column+" = %s", shorten(field.value))
		if l.heads.dialect.kind == SQLite {
			sign = "+"
		}
	}
	if !filter.Since.IsZero() {
		where.add("d.dead_at >= %s", microsUp(filter.Since))
	}
	if !filter.Until.IsZero() {
		where.add("d.dead_at < %s", microsUp(filter.Until))
	}
	return where
}

// List implements dlq.Store.
func (d *DeadLetters) List(ctx context.Context, query dlq.Query) (dlq.Page, error) {
	if err := d.usable(ctx); err != nil {
		return dlq.Page{}, err
	}
	scan, err := query.Scan()
	if err != nil {
		return dlq.Page{}, err
	}
	text, args := d.store.letters.listQuery(&scan)
	var keys [][]byte
	var found map[string]*deadLetterContent
	err = d.store.reader.read(ctx, "list dead letters", func(q querier) error {
		var err error
		if keys, err = queryKeys(ctx, q, text, args...); err != nil {
			return err
		}
		page := make([]string, min(len(keys), scan.Limit))
		for i := range page {
			page[i] = string(keys[i])
		}
		found, err = d.store.letters.readContents(ctx, q, page)
		return err
	})
	if err != nil {
		return dlq.Page{}, err
	}
	page := dlq.Page{Entries: make([]dlq.Entry, min(len(keys), scan.Limit))}
	for i := range page.Entries {
		content := found[string(keys[i])]
		if content == nil { // it was deleted from one table only
			return dlq.Page{}, fmt.Errorf("%w: dead letter %.100q", ErrDamaged, keys[i])
		}
		if page.Entries[i], err = content.decode(); err != nil {
			return dlq.Page{}, err
		}
	}
	if len(keys) > scan.Limit {
		page.Next = scan.Cursor(&page.Entries[scan.Limit-1])
	}
	return page, nil
}

// listQuery asks for the IDs of a page and one more, to learn whether there is
// another page.
func (l *deadLetterTables) listQuery(scan *dlq.Scan) (text string, args []any) {
	where := l.conditions(&scan.Filter)
	beyond, direction := "<", "DESC"
	if scan.Order == dlq.OldestFirst {
		beyond, direction = ">", "ASC"
	}
	if scan.After.ID != "" {
		where.add("(d.dead_at, d.id) "+beyond+" (%s, %s)", scan.After.At.UnixMicro(), shorten(scan.After.ID))
	}
	text = fmt.Sprintf("SELECT d.id FROM %s AS d%s ORDER BY d.dead_at %[3]s, d.id %[3]s LIMIT %[4]d",
		l.heads.name, where.where(), direction, scan.Limit+1)
	return text, where.args
}

// Count implements dlq.Store. It reads the index of one field, and the table if
// the filter has several.
func (d *DeadLetters) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	if err := d.usable(ctx); err != nil {
		return 0, err
	}
	if err := dlq.CheckFilter(&filter); err != nil {
		return 0, err
	}
	where := d.store.letters.conditions(&filter)
	text := fmt.Sprintf("SELECT COUNT(*) FROM %s AS d%s", d.store.letters.heads.name, where.where())
	var count int
	err := d.store.reader.read(ctx, "count dead letters", func(q querier) error {
		return query(ctx, q, func(answer scanner) error { return answer.Scan((*intoInt)(&count)) }, text, where.args...)
	})
	return count, err
}

// Stats implements dlq.Store. The counts are those of one moment. It reads an
// index for each count, and an entry for each fingerprint, whose newest error
// is the example.
func (d *DeadLetters) Stats(ctx context.Context, top int) (dlq.Stats, error) {
	if err := d.usable(ctx); err != nil {
		return dlq.Stats{}, err
	}
	if err := dlq.CheckTop(top); err != nil {
		return dlq.Stats{}, err
	}
	var stats dlq.Stats
	err := d.store.reader.read(ctx, "dead letter stats", func(q querier) error {
		s := deadLetterStats{letters: d.store.letters, q: q}
		reasons, err := s.counts(ctx, "reason")
		if err != nil {
			return err
		}
		types, err := s.counts(ctx, "type")
		if err != nil {
			return err
		}
		stats = dlq.Stats{ByReason: make(map[delivery.Reason]int, len(reasons)), ByType: types}
		for reason, count := range reasons {
			stats.ByReason[delivery.Reason(reason)] = count
			stats.Total += count
		}
		oldest := "SELECT MIN(dead_at) FROM " + s.letters.heads.name
		if err := query(ctx, q, func(answer scanner) error { return answer.Scan((*intoTime)(&stats.Oldest)) }, oldest); err != nil {
			return err
		}
		stats.Fingerprints, err = s.fingerprints(ctx, top)
		return err
	})
	return stats, err
}

// deadLetterStats counts in one transaction.
type deadLetterStats struct {
	letters *deadLetterTables
	q       querier
}

// columnCount is a value of a column of heads, as it stands there, and how many
// entries have it.
type columnCount struct {
	value   []byte
	count   int
	example string // an error, for a fingerprint
}

// counts counts entries by a column.
func (s *deadLetterStats) counts(ctx context.Context, column string) (map[string]int, error) {
	var all []columnCount
	text := fmt.Sprintf("SELECT %s, COUNT(*) FROM %s GROUP BY %[1]s", column, s.letters.heads.name)
	err := query(ctx, s.q, func(answer scanner) error {
		var c columnCount
		err := answer.Scan((*intoBytes)(&c.value), (*intoInt)(&c.count))
		all = append(all, c)
		return err
	}, text)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int, len(all))
	for _, c := range all {
		value, err := s.unshortened(ctx, column, c.value)
		if err != nil {
			return nil, err
		}
		counts[value] = c.count
	}
	return counts, nil
}

func (s *deadLetterStats) fingerprints(ctx context.Context, top int) ([]dlq.FingerprintCount, error) {
	var all []columnCount
	text := fmt.Sprintf(`SELECT g.fingerprint, g.count, (
		SELECT e.error FROM %[1]s AS d JOIN %[2]s AS e ON e.id = d.id
		WHERE d.fingerprint = g.fingerprint ORDER BY d.dead_at DESC, d.id DESC LIMIT 1
	) FROM (
		SELECT fingerprint, COUNT(*) AS count FROM %[1]s GROUP BY fingerprint ORDER BY count DESC, fingerprint LIMIT %[3]d
	) AS g`, s.letters.heads.name, s.letters.contents.name, top)
	err := query(ctx, s.q, func(answer scanner) error {
		var c columnCount
		err := answer.Scan((*intoBytes)(&c.value), (*intoInt)(&c.count), (*intoString)(&c.example))
		all = append(all, c)
		return err
	}, text)
	if err != nil {
		return nil, err
	}
	groups := make([]dlq.FingerprintCount, len(all))
	for i, c := range all {
		groups[i] = dlq.FingerprintCount{Count: c.count, Example: c.example}
		if groups[i].Fingerprint, err = s.unshortened(ctx, "fingerprint", c.value); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(groups, func(a, b dlq.FingerprintCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	return groups, nil
}

// unshortened is a value of a column as it was before it was shortened. It
// stays short when its entry can't be read.
func (s *deadLetterStats) unshortened(ctx context.Context, column string, value []byte) (string, error) {
	if !isShortened(value) {
		return string(value), nil
	}
	d := s.letters.heads.dialect
	text := fmt.Sprintf("SELECT %s FROM %s AS d JOIN %s AS e ON e.id = d.id WHERE d.%s = %s LIMIT 1",
		named("e", contentColumns), s.letters.heads.name, s.letters.contents.name, column, d.param(1))
	whole := string(value)
	err := query(ctx, s.q, func(answer scanner) error {
		content, err := scanContent(answer)
		if err != nil {
			return err
		}
		if entry, damaged := content.decode(); damaged == nil {
			whole = map[string]string{
				"reason": string(entry.Reason), "type": entry.Envelope.Type, "fingerprint": entry.Fingerprint,
			}[column]
		}
		return nil
	}, text, value)
	return whole, err
}
