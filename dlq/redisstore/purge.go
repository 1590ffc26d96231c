package redisstore

import (
	"context"
	"time"

	"github.com/esh3artech/barid/dlq"
)

// Purge implements dlq.Store. It works in batches. When an error or ctx's end
// interrupts it, it returns how many it has deleted until then.
func (s *Store) Purge(ctx context.Context, before, now time.Time) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	purged := 0
	scan := dlq.Scan{Filter: dlq.Filter{Until: before}, Order: dlq.OldestFirst}
	r := newIndexRange(&scan, part(byTime, ""))
	if before.IsZero() {
		r.max = "(" + r.part + placeOf(before)
	}
	for {
		found, err := s.readIndex(ctx, "purge", r, tripEntries)
		if err != nil || len(found) == 0 {
			return purged, err
		}
		ids := make([]string, len(found))
		arguments := make([]any, 0, 1+2*len(found))
		arguments = append(arguments, unixMicro(now))
		for i := range found {
			ids[i] = found[i].id
			arguments = append(arguments, found[i].id, found[i].place)
		}
		answers, err := s.runScript(ctx, "purge", s.scripts.discard, ids, arguments...)
		if err != nil {
			return purged, err
		}
		var stale []indexedEntry
		for i := range min(len(answers), len(found)) {
			switch answers[i] {
			case answerDone:
				purged++
			case answerMissing:
				stale = append(stale, found[i])
			}
		}
		if err := s.prune(ctx, stale); err != nil {
			return purged, err
		}
		last := found[len(found)-1]
		r.after(last.place + last.id)
	}
}
