package redisstore

import (
	"context"
	"fmt"
	"strconv"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// Count implements dlq.Store. If the filter has one field at most, beside a
// time range, it asks the index and reads no entry. With several fields it
// reads small parts of the entries that fit the field which fits the fewest.
// ctx bounds that.
func (s *Store) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	if err := dlq.CheckFilter(&filter); err != nil {
		return 0, err
	}
	scan := dlq.Scan{Filter: filter, Order: dlq.OldestFirst}
	r, err := s.narrowest(ctx, "count", &scan)
	if err != nil {
		return 0, err
	}
	if r.exact {
		return exchange(ctx, s, "count", func(ctx context.Context) (int, error) {
			count, err := s.client.ZLexCount(ctx, s.keys.index(), r.min, r.max).Result()
			return int(count), err
		})
	}
	count := 0
	for {
		found, err := s.readIndex(ctx, "count", r, scanChunk)
		if err != nil {
			return 0, err
		}
		matching, err := s.matching(ctx, "count", &scan, found)
		if err != nil {
			return 0, err
		}
		count += len(matching)
		if len(found) < scanChunk {
			return count, nil
		}
		last := found[len(found)-1]
		r.after(last.place + last.id)
	}
}

// Stats implements dlq.Store. The counts are those of one moment. Redis keeps
// them with every change, so no entry is read except for the example of each
// fingerprint. That is the newest error, or empty when its entry was deleted
// meanwhile.
func (s *Store) Stats(ctx context.Context, top int) (dlq.Stats, error) {
	if err := s.usable(ctx); err != nil {
		return dlq.Stats{}, err
	}
	if err := dlq.CheckTop(top); err != nil {
		return dlq.Stats{}, err
	}
	answer, err := exchange(ctx, s, "stats", func(ctx context.Context) ([]any, error) {
		return s.scripts.stats.Run(ctx, s.client, s.keys.with(nil), top).Slice()
	})
	if err != nil {
		return dlq.Stats{}, err
	}
	stats, newest, err := parseStats(answer)
	if err != nil {
		return dlq.Stats{}, &UnavailableError{Op: "stats", Err: err}
	}
	if err := s.addExamples(ctx, &stats, newest); err != nil {
		return dlq.Stats{}, err
	}
	return stats, nil
}

// parseStats decodes the answer of the script stats. newest has for each
// fingerprint the id of its newest entry, or "".
func parseStats(answer []any) (stats dlq.Stats, newest []string, err error) {
	stats = dlq.Stats{ByReason: make(map[delivery.Reason]int), ByType: make(map[string]int)}
	r := reader{values: answer}
	stats.Total = r.number()
	if oldest := r.text(); len(oldest) > 1+digits {
		if stats.Oldest, err = timeOf(oldest[1 : 1+digits]); err != nil {
			return dlq.Stats{}, nil, err
		}
	}
	for reasons := r.list(); reasons.more(); {
		stats.ByReason[delivery.Reason(reasons.text())] = reasons.number()
	}
	for types := r.list(); types.more(); {
		stats.ByType[types.text()] = types.number()
	}
	groups, members := r.list(), r.list()
	stats.Fingerprints = []dlq.FingerprintCount{}
	for groups.more() {
		stats.Fingerprints = append(stats.Fingerprints, dlq.FingerprintCount{
			Fingerprint: groups.text(),
			Count:       -groups.number(),
		})
		member, id := members.text(), ""
		if at := len(part(byFingerprint, "")) + digits; len(member) > at {
			id = member[at:]
		}
		newest = append(newest, id)
	}
	if len(answer) != 6 {
		return dlq.Stats{}, nil, fmt.Errorf("it answers %d lists, want 6", len(answer))
	}
	return stats, newest, nil
}

// addExamples sets the example of each fingerprint.
func (s *Store) addExamples(ctx context.Context, stats *dlq.Stats, newest []string) error {
	if len(newest) == 0 {
		return nil
	}
	answers, err := s.read(ctx, "stats", newest, []string{"error", "fingerprint"})
	if err != nil {
		return err
	}
	for i := range stats.Fingerprints {
		example := reader{values: answers[i]}
		if text := example.text(); example.text() == stats.Fingerprints[i].Fingerprint {
			stats.Fingerprints[i].Example = text
		}
	}
	return nil
}

// reader returns one value after another of what a script answered, and zero
// where there is none.
type reader struct{ values []any }

func (r *reader) more() bool { return len(r.values) > 0 }

func (r *reader) next() any {
	if len(r.values) == 0 {
		return nil
	}
	value := r.values[0]
	r.values = r.values[1:]
	return value
}

func (r *reader) text() string {
	text, _ := r.next().(string)
	return text
}

func (r *reader) number() int {
	switch value := r.next().(type) {
	case int64:
		return int(value)
	case string:
		number, _ := strconv.Atoi(value)
		return number
	}
	return 0
}

func (r *reader) list() *reader {
	values, _ := r.next().([]any)
	return &reader{values: values}
}
