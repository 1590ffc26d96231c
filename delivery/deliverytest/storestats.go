package deliverytest

import (
	"time"

	"github.com/esh3artech/barid/delivery"
)

// countsOf is what Stats has to say of the records.
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

// counts fails the test unless Stats says the same.
func (r *storeRig) counts(want delivery.RecordStats) {
	r.Helper()
	got, err := r.store.Stats(r.Context())
	if err != nil {
		r.Fatalf("Stats: %v", err)
	}
	if got.Total != want.Total || !got.OldestPending.Equal(want.OldestPending) {
		r.Errorf("Stats: Total is %d, OldestPending %s, want %d and %s", got.Total, got.OldestPending, want.Total, want.OldestPending)
	}
	if err := improper(got.OldestPending); err != nil {
		r.Errorf("Stats: OldestPending: %v", err)
	}
	total := 0
	for _, status := range delivery.Statuses() {
		total += got.Of(status)
		for _, priority := range delivery.Priorities() {
			if got, want := got.Counts[status][priority], want.Counts[status][priority]; got != want {
				r.Errorf("Stats: %d are %s and %s, want %d", got, status, priority, want)
			}
		}
	}
	if total != want.Total {
		r.Errorf("Stats: the counts add up to %d, want %d", total, want.Total)
	}
}

func storeStats(r *storeRig) {
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
	r.save(records...)
	check := func() {
		r.Helper()
		stats := delivery.RecordStats{Total: len(records), Counts: countsOf(records)}
		for i := range records {
			if records[i].Status == delivery.StatusPending {
				stats.OldestPending = records[i].CreatedAt
				break
			}
		}
		r.counts(stats)
	}
	check()
	stats, err := r.store.Stats(r.Context())
	if err != nil {
		r.Fatalf("Stats: %v", err)
	}
	for _, counts := range stats.Counts {
		clear(counts) // the caller's own
	}
	check()
	for i := range records {
		if records[i].Status != delivery.StatusPending {
			break
		}
		update := delivery.Update{ID: records[i].ID, Status: delivery.StatusQueued, At: after(1000)}
		if err := records[i].Apply(update); err != nil {
			r.Fatalf("Apply: %v", err)
		}
		r.update(update)
		check()
	}
	older := plainRecord(-1000)
	r.save(older)
	records = append([]delivery.Record{older}, records...)
	check()
}

func purges(r *storeRig) {
	var kept, settled []delivery.Record
	i := 0
	for _, status := range delivery.Statuses() {
		for age := range 3 {
			record := plainRecord(i)
			record.Status, record.UpdatedAt = status, after(1000+age)
			i++
			switch {
			case !status.Final() && status != delivery.StatusFailed:
				kept = append(kept, record)
			default:
				settled = append(settled, record)
			}
		}
	}
	r.save(append(append([]delivery.Record{}, kept...), settled...)...)
	r.purge(after(1000), 100, 0)
	r.purge(after(5000), 0, 0)
	r.kept(settled...)
	// Of each status that has ended those last changed at 1000 and 1001 go.
	ended := len(settled) / 3
	r.purge(after(1002), 3, 3)
	r.purge(after(1002), 100, 2*ended-3)
	r.purge(after(1002), 100, 0)
	var left []delivery.Record
	for _, record := range settled {
		if record.UpdatedAt.Equal(after(1002)) {
			left = append(left, record)
			continue
		}
		r.gone(record.ID)
	}
	r.kept(left...)
	r.kept(kept...)
	r.counts(delivery.RecordStats{Total: len(kept) + len(left), Counts: countsOf(append(left, kept...)), OldestPending: kept[0].CreatedAt})

	// What is changed is young again, and what is gone may come again.
	touched := left[0]
	if touched.Status != delivery.StatusDelivered {
		r.Fatalf("the first that is left is %s", touched.Status)
	}
	r.update(delivery.Update{ID: touched.ID, Status: delivery.StatusRead, Acknowledged: true, At: after(2000)})
	r.purge(after(2000), 100, ended-1)
	r.purge(after(2000).Add(time.Microsecond), 100, 1)
	r.save(touched)
	r.kept(touched)
	r.kept(kept...)
	if ids := idsOf(r.walk(delivery.RecordQuery{Limit: 2}, nil)); len(ids) != len(kept)+1 {
		r.Errorf("List after a purge: %q", ids)
	}
}
