package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
)

// scanned is how many entries of the index are looked at in one go where the
// filter has more to say than the index.
const scanned = 500

// spot is an entry as the index knows it.
type spot struct{ member, place, id string }

// span is a range of the index, from one end on.
type span struct {
	part     string
	min, max string // as ZRANGEBYLEX takes them
	newest   bool   // first
	// exact: all of it fits the filter, unless digests are the same by chance.
	exact bool
}

// newSpan is the part of the index that fits one field of the scan, its times
// and its cursor.
func newSpan(scan *dlq.Scan, part string) span {
	w := span{part: part, min: "[" + part, max: "(" + part + beyond, newest: scan.Order == dlq.NewestFirst}
	if !scan.Since.IsZero() {
		w.min = "[" + part + placeOf(ceil(scan.Since))
	}
	if !scan.Until.IsZero() {
		w.max = "(" + part + placeOf(ceil(scan.Until))
	}
	if scan.After.ID != "" {
		w.after(placeOf(scan.After.At) + scan.After.ID)
	}
	return w
}

// after leaves what comes up to position, and position itself, behind.
func (w *span) after(position string) {
	if w.newest {
		w.max = "(" + w.part + position
	} else {
		w.min = "(" + w.part + position
	}
}

// ceil is the first whole microsecond that is not before t.
func ceil(t time.Time) time.Time {
	if whole := t.Truncate(time.Microsecond); whole.Before(t) {
		return whole.Add(time.Microsecond)
	}
	return t
}

// List implements dlq.Store. It reads the index of the field that fits the
// fewest entries, and filters the rest by small parts of those entries; bodies
// are read for the page only. Where all fields together fit little and each
// alone fits much, that takes many round trips: ctx bounds them.
func (s *Store) List(ctx context.Context, query dlq.Query) (dlq.Page, error) {
	if err := s.usable(ctx); err != nil {
		return dlq.Page{}, err
	}
	scan, err := query.Scan()
	if err != nil {
		return dlq.Page{}, err
	}
	w, err := s.narrowest(ctx, "list", &scan)
	if err != nil {
		return dlq.Page{}, err
	}
	page := dlq.Page{Entries: []dlq.Entry{}}
	for {
		room := scan.Limit - len(page.Entries)
		count := scanned
		if w.exact {
			count = room + 1
		}
		spots, err := s.spots(ctx, "list", w, count)
		if err != nil {
			return dlq.Page{}, err
		}
		fitting, err := s.fitting(ctx, "list", &scan, spots)
		if err != nil {
			return dlq.Page{}, err
		}
		more := len(fitting) > room
		if more {
			fitting = fitting[:room]
		}
		if err := s.addTo(ctx, &page, fitting); err != nil {
			return dlq.Page{}, err
		}
		switch {
		case more && len(page.Entries) == scan.Limit:
			page.Next = scan.Cursor(&page.Entries[scan.Limit-1])
			return page, nil
		case more: // some went while they were read: others come in their place
			last := fitting[len(fitting)-1]
			w.after(last.place + last.id)
		case len(spots) < count:
			return page, nil
		default:
			last := spots[len(spots)-1]
			w.after(last.place + last.id)
		}
	}
}

// narrowest finds the part of the index that has the fewest entries for scan.
func (s *Store) narrowest(ctx context.Context, op string, scan *dlq.Scan) (span, error) {
	var spans []span
	add := func(by int, value string) {
		if value != "" {
			spans = append(spans, newSpan(scan, part(by, value)))
		}
	}
	add(byReason, string(scan.Reason))
	add(byRecipient, scan.Recipient)
	add(byType, scan.Type)
	add(byFingerprint, scan.Fingerprint)
	add(bySource, scan.Source)
	if len(spans) == 0 {
		spans = append(spans, newSpan(scan, part(byTime, "")))
	}
	if len(spans) == 1 {
		spans[0].exact = true
		return spans[0], nil
	}
	counts, err := exchange(ctx, s, op, func(ctx context.Context) ([]int64, error) {
		commands := make([]*redis.IntCmd, len(spans))
		_, err := s.client.Pipelined(ctx, func(pipeline redis.Pipeliner) error {
			for i, w := range spans {
				commands[i] = pipeline.ZLexCount(ctx, s.keys.index(), w.min, w.max)
			}
			return nil
		})
		counts := make([]int64, len(spans))
		for i, command := range commands {
			counts[i] = command.Val()
		}
		return counts, err
	})
	if err != nil {
		return span{}, err
	}
	best := 0
	for i := range counts {
		if counts[i] < counts[best] {
			best = i
		}
	}
	return spans[best], nil
}

// spots reads the index, count members at most.
func (s *Store) spots(ctx context.Context, op string, w span, count int) ([]spot, error) {
	members, err := exchange(ctx, s, op, func(ctx context.Context) ([]string, error) {
		by := &redis.ZRangeBy{Min: w.min, Max: w.max, Count: int64(count)}
		if w.newest {
			return s.client.ZRevRangeByLex(ctx, s.keys.index(), by).Result()
		}
		return s.client.ZRangeByLex(ctx, s.keys.index(), by).Result()
	})
	if err != nil {
		return nil, err
	}
	spots := make([]spot, 0, len(members))
	for _, member := range members {
		if at := len(w.part) + digits; len(member) > at {
			spots = append(spots, spot{member: member, place: member[len(w.part):at], id: member[at:]})
		}
	}
	return spots, nil
}

// fitting returns those that the filter picks, in order. What the index says of
// others, or of what is gone, is no matter; where it stays wrong, because
// somebody else deleted an entry's key, it is mended.
func (s *Store) fitting(ctx context.Context, op string, scan *dlq.Scan, spots []spot) ([]wanted, error) {
	if len(spots) == 0 {
		return nil, nil
	}
	ids := make([]string, len(spots))
	for i := range spots {
		ids[i] = spots[i].id
	}
	heads, err := s.heads(ctx, op, ids)
	if err != nil {
		return nil, err
	}
	fitting := make([]wanted, 0, len(spots))
	var astray []spot
	for i := range heads {
		switch {
		case heads[i].place != spots[i].place:
			astray = append(astray, spots[i])
		case scan.Match(&heads[i].entry):
			fitting = append(fitting, wanted{id: ids[i], place: spots[i].place, size: heads[i].size})
		}
	}
	return fitting, s.prune(ctx, astray)
}

// prune takes out of the index what does not point to an entry. An entry that
// went or moved while we looked has taken its members along.
func (s *Store) prune(ctx context.Context, astray []spot) error {
	for _, batch := range trips(astray, func(*spot) int { return 0 }) {
		ids := make([]string, len(batch))
		arguments := make([]any, 0, 2*len(batch))
		for i := range batch {
			ids[i] = batch[i].id
			arguments = append(arguments, batch[i].member, batch[i].place)
		}
		if _, err := s.run(ctx, "prune", s.scripts.prune, ids, arguments...); err != nil {
			return err
		}
	}
	return nil
}

// addTo reads entries and adds those that are still there.
func (s *Store) addTo(ctx context.Context, page *dlq.Page, fitting []wanted) error {
	var failed error
	s.fetch(ctx, "list", fitting, func(_ int, entry dlq.Entry, err error) {
		switch {
		case err == nil:
			page.Entries = append(page.Entries, entry)
		case failed == nil && !errors.Is(err, dlq.ErrNotFound):
			failed = err
		}
	})
	return failed
}

// Purge implements dlq.Store. It works in batches: what an error or ctx's end
// interrupts has deleted as many as it says.
func (s *Store) Purge(ctx context.Context, before, now time.Time) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	purged := 0
	scan := dlq.Scan{Filter: dlq.Filter{Until: before}, Order: dlq.OldestFirst}
	w := newSpan(&scan, part(byTime, ""))
	if before.IsZero() {
		w.max = "(" + w.part + placeOf(before)
	}
	for {
		spots, err := s.spots(ctx, "purge", w, tripEntries)
		if err != nil || len(spots) == 0 {
			return purged, err
		}
		ids := make([]string, len(spots))
		arguments := make([]any, 0, 1+2*len(spots))
		arguments = append(arguments, unixMicro(now))
		for i := range spots {
			ids[i] = spots[i].id
			arguments = append(arguments, spots[i].id, spots[i].place)
		}
		answers, err := s.run(ctx, "purge", s.scripts.discard, ids, arguments...)
		if err != nil {
			return purged, err
		}
		var astray []spot
		for i := range min(len(answers), len(spots)) {
			switch answers[i] {
			case answerDone:
				purged++
			case answerMissing:
				astray = append(astray, spots[i])
			}
		}
		if err := s.prune(ctx, astray); err != nil {
			return purged, err
		}
		last := spots[len(spots)-1]
		w.after(last.place + last.id)
	}
}
