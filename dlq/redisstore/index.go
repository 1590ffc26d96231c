package redisstore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
)

// scanChunk is how many entries of the index are read at once where the index
// alone does not tell which of them match.
const scanChunk = 500

// indexedEntry is an entry as a member of the index has it.
type indexedEntry struct{ member, place, id string }

// indexRange is a range of the index. It is read from one end on.
type indexRange struct {
	part     string
	min, max string // as ZRANGEBYLEX takes them
	newest   bool   // from the newest entry on
	// exact means that all entries in the range fit the filter, unless two digests
	// are the same by chance.
	exact bool
}

// newIndexRange returns the range of a part of the index that fits the times
// and the cursor of scan.
func newIndexRange(scan *dlq.Scan, part string) indexRange {
	r := indexRange{part: part, min: "[" + part, max: "(" + part + beyond, newest: scan.Order == dlq.NewestFirst}
	if !scan.Since.IsZero() {
		r.min = "[" + part + placeOf(ceil(scan.Since))
	}
	if !scan.Until.IsZero() {
		r.max = "(" + part + placeOf(ceil(scan.Until))
	}
	if scan.After.ID != "" {
		r.after(placeOf(scan.After.At) + scan.After.ID)
	}
	return r
}

// after makes the range begin behind position.
func (r *indexRange) after(position string) {
	if r.newest {
		r.max = "(" + r.part + position
	} else {
		r.min = "(" + r.part + position
	}
}

// ceil returns the first whole microsecond that is not before t.
func ceil(t time.Time) time.Time {
	if whole := t.Truncate(time.Microsecond); whole.Before(t) {
		return whole.Add(time.Microsecond)
	}
	return t
}

// narrowest returns the range of the index that has the fewest entries of all
// ranges that contain everything that scan picks.
func (s *Store) narrowest(ctx context.Context, op string, scan *dlq.Scan) (indexRange, error) {
	var ranges []indexRange
	add := func(by int, value string) {
		if value != "" {
			ranges = append(ranges, newIndexRange(scan, part(by, value)))
		}
	}
	add(byReason, string(scan.Reason))
	add(byRecipient, scan.Recipient)
	add(byType, scan.Type)
	add(byFingerprint, scan.Fingerprint)
	add(bySource, scan.Source)
	if len(ranges) == 0 {
		ranges = append(ranges, newIndexRange(scan, part(byTime, "")))
	}
	if len(ranges) == 1 {
		ranges[0].exact = true
		return ranges[0], nil
	}
	counts, err := exchange(ctx, s, op, func(ctx context.Context) ([]int64, error) {
		commands := make([]*redis.IntCmd, len(ranges))
		_, err := s.client.Pipelined(ctx, func(pipeline redis.Pipeliner) error {
			for i, r := range ranges {
				commands[i] = pipeline.ZLexCount(ctx, s.keys.index(), r.min, r.max)
			}
			return nil
		})
		counts := make([]int64, len(ranges))
		for i, command := range commands {
			counts[i] = command.Val()
		}
		return counts, err
	})
	if err != nil {
		return indexRange{}, err
	}
	best := 0
	for i := range counts {
		if counts[i] < counts[best] {
			best = i
		}
	}
	return ranges[best], nil
}

// readIndex returns the first entries of a range, at most count.
func (s *Store) readIndex(ctx context.Context, op string, r indexRange, count int) ([]indexedEntry, error) {
	members, err := exchange(ctx, s, op, func(ctx context.Context) ([]string, error) {
		by := &redis.ZRangeBy{Min: r.min, Max: r.max, Count: int64(count)}
		if r.newest {
			return s.client.ZRevRangeByLex(ctx, s.keys.index(), by).Result()
		}
		return s.client.ZRangeByLex(ctx, s.keys.index(), by).Result()
	})
	if err != nil {
		return nil, err
	}
	found := make([]indexedEntry, 0, len(members))
	for _, member := range members {
		if at := len(r.part) + digits; len(member) > at {
			found = append(found, indexedEntry{member: member, place: member[len(r.part):at], id: member[at:]})
		}
	}
	return found, nil
}

// matching returns those that the filter picks, in order. It leaves out entries
// that are gone or have moved. Where a member of the index points to no entry,
// because someone deleted the entry's key by hand, it removes the member.
func (s *Store) matching(ctx context.Context, op string, scan *dlq.Scan, found []indexedEntry) ([]wanted, error) {
	if len(found) == 0 {
		return nil, nil
	}
	ids := make([]string, len(found))
	for i := range found {
		ids[i] = found[i].id
	}
	heads, err := s.heads(ctx, op, ids)
	if err != nil {
		return nil, err
	}
	matching := make([]wanted, 0, len(found))
	var stale []indexedEntry
	for i := range heads {
		switch {
		case heads[i].place != found[i].place:
			stale = append(stale, found[i])
		case scan.Match(&heads[i].entry):
			matching = append(matching, wanted{id: ids[i], place: found[i].place, size: heads[i].size})
		}
	}
	return matching, s.prune(ctx, stale)
}

// prune removes members of the index that point to no entry. It changes nothing
// for an entry that was deleted or moved meanwhile: its old members are gone
// already.
func (s *Store) prune(ctx context.Context, stale []indexedEntry) error {
	for _, batch := range roundTrips(stale, func(*indexedEntry) int { return 0 }) {
		ids := make([]string, len(batch))
		arguments := make([]any, 0, 2*len(batch))
		for i := range batch {
			ids[i] = batch[i].id
			arguments = append(arguments, batch[i].member, batch[i].place)
		}
		if _, err := s.runScript(ctx, "prune", s.scripts.prune, ids, arguments...); err != nil {
			return err
		}
	}
	return nil
}
