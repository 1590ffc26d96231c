package deliverytest

import (
	"errors"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// countsOf is what RecordStats.Counts has to be for the records.
func countsOf(records []delivery.Record) map[delivery.Status]map[delivery.Priority]int {
	counts := map[delivery.Status]map[delivery.Priority]int{}
	for i := range records {
		if counts[records[i].Status] == nil {
			counts[records[i].Status] = map[delivery.Priority]int{}
		}
		counts[records[i].Status][records[i].Priority]++
	}
	return counts
}

// statsOf is what Stats has to be for the records.
func statsOf(records []delivery.Record) delivery.RecordStats {
	stats := delivery.RecordStats{Total: len(records), Counts: countsOf(records)}
	earliest := func(at *time.Time, other time.Time) {
		if at.IsZero() || other.Before(*at) {
			*at = other
		}
	}
	for i := range records {
		switch records[i].Status {
		case delivery.StatusPending:
			earliest(&stats.OldestPending, records[i].CreatedAt)
		case delivery.StatusQueued:
			earliest(&stats.OldestQueued, records[i].UpdatedAt)
		default:
		}
	}
	return stats
}

// checkStats fails the test unless Stats of all queues returns the same.
func (t *storeSubtest) checkStats(want delivery.RecordStats) {
	t.Helper()
	t.checkStatsOf("", want)
}

func (t *storeSubtest) checkStatsOf(queue string, want delivery.RecordStats, statuses ...delivery.Status) {
	t.Helper()
	got, err := t.store.Stats(t.Context(), queue, statuses...)
	if err != nil {
		t.Fatalf("Stats: %v", err)
	}
	if got.Total != want.Total || !got.OldestPending.Equal(want.OldestPending) {
		t.Errorf("Stats: Total is %d, OldestPending %s, want %d and %s", got.Total, got.OldestPending, want.Total, want.OldestPending)
	}
	if !got.OldestQueued.Equal(want.OldestQueued) {
		t.Errorf("Stats: OldestQueued is %s, want %s", got.OldestQueued, want.OldestQueued)
	}
	if err := errors.Join(timeProblem(got.OldestPending), timeProblem(got.OldestQueued)); err != nil {
		t.Errorf("Stats: oldest: %v", err)
	}
	total := 0
	for _, status := range delivery.Statuses() {
		total += got.Of(status)
		for _, priority := range delivery.Priorities() {
			if got, want := got.Counts[status][priority], want.Counts[status][priority]; got != want {
				t.Errorf("Stats: %d are %s and %s, want %d", got, status, priority, want)
			}
		}
	}
	if total != want.Total {
		t.Errorf("Stats: the counts add up to %d, want %d", total, want.Total)
	}
}

// storeStats counts records in every status and priority, while they change.
func storeStats(t *storeSubtest) {
	var records []delivery.Record
	for s, status := range delivery.Statuses() {
		for p, priority := range delivery.Priorities() {
			for range 1 + s + p {
				record := plainRecord(len(records))
				record.Status, record.Priority = status, priority
				records = append(records, record)
			}
		}
	}
	t.save(records...)
	check := func() {
		t.Helper()
		t.checkStats(statsOf(records))
		all := delivery.Statuses()
		for n, status := range all {
			for _, statuses := range [][]delivery.Status{{status}, all[:n+1], {status, status, all[0]}} {
				some := slices.DeleteFunc(slices.Clone(records), func(r delivery.Record) bool { return !slices.Contains(statuses, r.Status) })
				t.checkStatsOf("", statsOf(some), statuses...)
				t.checkStatsOf(storeQueue, statsOf(some), statuses...)
			}
		}
	}
	check()
	stats, err := t.store.Stats(t.Context(), "")
	if err != nil {
		t.Fatalf("Stats: %v", err)
	}
	for _, counts := range stats.Counts {
		clear(counts) // it belongs to the caller
	}
	check()
	for i := range records {
		if records[i].Status != delivery.StatusPending {
			break
		}
		update := delivery.Update{ID: records[i].ID, Status: delivery.StatusQueued, At: after(1000)}
		if err := records[i].Apply(update); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		t.update(update)
		check()
	}
	older := plainRecord(-1000)
	t.save(older)
	records = append([]delivery.Record{older}, records...)
	check()
}
