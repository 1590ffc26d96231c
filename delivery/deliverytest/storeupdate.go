package deliverytest

import (
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// transitions tries news of every status on records of every status, in the
// same, a later and an earlier generation and attempt.
func transitions(r *storeRig) {
	var records []delivery.Record
	var updates []delivery.Update
	add := func(change func(*delivery.Record, *delivery.Update)) {
		i := len(records)
		record := plainRecord(i)
		record.Generation, record.RetryCount, record.DueAt = 1, 1, after(10)
		update := delivery.Update{ID: record.ID, Generation: 1, RetryCount: 1, At: after(5000 + i), DueAt: after(6000 + i)}
		change(&record, &update)
		records, updates = append(records, record), append(updates, update)
	}
	for _, from := range delivery.Statuses() {
		for _, to := range delivery.Statuses() {
			for _, news := range []func(*delivery.Record, *delivery.Update){
				func(*delivery.Record, *delivery.Update) {},
				func(_ *delivery.Record, u *delivery.Update) { u.Generation, u.RetryCount = 2, 0 },
				func(_ *delivery.Record, u *delivery.Update) { u.Generation = 0 },
				func(_ *delivery.Record, u *delivery.Update) { u.RetryCount = 0 },
				func(_ *delivery.Record, u *delivery.Update) {
					u.RetryCount, u.Failure = 2, &delivery.Failure{At: after(1), Attempt: 2, Error: "no"}
				},
				func(_ *delivery.Record, u *delivery.Update) {
					u.Failure, u.DeadLetterID = &delivery.Failure{At: after(1), Error: "no"}, "letter"
				},
				func(r *delivery.Record, u *delivery.Update) {
					r.ClaimedBy, r.DueAt, u.DueAt = "p", after(9000), after(9001)
				},
				func(r *delivery.Record, u *delivery.Update) { r.ClaimedBy, u.OnlyIfClaimedBy = "p", "p" },
				func(r *delivery.Record, u *delivery.Update) { r.ClaimedBy, u.OnlyIfClaimedBy = "q", "p" },
				func(r *delivery.Record, u *delivery.Update) {
					u.Acknowledged, r.SentAt = to == delivery.StatusDelivered || to == delivery.StatusRead, after(3)
				},
				func(_ *delivery.Record, u *delivery.Update) {
					u.Acknowledged, u.Generation = to == delivery.StatusDelivered || to == delivery.StatusRead, 0
				},
			} {
				add(func(record *delivery.Record, update *delivery.Update) {
					record.Status, update.Status = from, to
					news(record, update)
				})
			}
		}
	}
	r.save(records...)
	progress, errs := r.store.Update(r.Context(), updates...)
	want := make([]error, len(updates))
	before := make([]delivery.Record, len(records))
	copy(before, records)
	for i := range updates {
		want[i] = records[i].Apply(updates[i])
	}
	if len(errs) != len(want) || len(progress) != len(want) {
		r.Fatalf("Update of %d: %d of progress, %d errors", len(want), len(progress), len(errs))
	}
	for i := range want {
		if !sameError(want[i], errs[i]) {
			r.Errorf("Update: error is %v, want %v\nof %+v\nby %+v", errs[i], want[i], before[i].Progress, updates[i])
		}
		if err := progressDifferences(&records[i].Progress, &progress[i]); err != nil {
			r.Errorf("Update: %v\nof %+v\nby %+v", err, before[i].Progress, updates[i])
		}
	}
	r.kept(records...)
	stats := delivery.RecordStats{Total: len(records), Counts: countsOf(records)}
	for i := range records {
		if records[i].Status == delivery.StatusPending {
			stats.OldestPending = records[i].CreatedAt
			break
		}
	}
	r.counts(stats)
}

// wholeLife leads one message through everything.
func wholeLife(r *storeRig) {
	record := plainRecord(0)
	record.RequireAck, record.ClaimedBy, record.DueAt = true, "publisher", after(30)
	other := plainRecord(1)
	r.save(record, other)
	for i, update := range []delivery.Update{
		{Status: delivery.StatusQueued, At: after(1), OnlyIfClaimedBy: "publisher"},
		{Status: delivery.StatusRetrying, RetryCount: 1, At: after(2), DueAt: after(12), Failure: &delivery.Failure{At: after(2), Attempt: 1, Error: "busy"}},
		{Status: delivery.StatusQueued, RetryCount: 1, At: after(12)},
		{Status: delivery.StatusSent, RetryCount: 1, At: after(13), DueAt: after(73)},
		{Status: delivery.StatusFailed, RetryCount: 2, At: after(74), DeadLetterID: "letter", Failure: &delivery.Failure{At: after(74), Attempt: 2, Error: "no acknowledgment"}},
		{Status: delivery.StatusPending, Generation: 1, At: after(80), DueAt: after(110), ClaimedBy: "replayer"},
		{Status: delivery.StatusQueued, Generation: 1, At: after(81), OnlyIfClaimedBy: "replayer"},
		{Status: delivery.StatusSent, Generation: 1, At: after(82), DueAt: after(142)},
		{Status: delivery.StatusDelivered, At: after(83), Acknowledged: true},
		{Status: delivery.StatusRead, At: after(84), Acknowledged: true},
	} {
		update.ID = record.ID
		if err := record.Apply(update); err != nil {
			r.Fatalf("Apply of step %d: %v", i, err)
		}
		// The second time is as the first, but for what was claimed.
		for range 2 {
			if err := progressDifferences(&record.Progress, &r.update(update)[0]); err != nil {
				r.Errorf("Update of step %d to %s: %v", i, update.Status, err)
			}
			r.kept(record, other)
			if update.OnlyIfClaimedBy != "" {
				break
			}
		}
		r.nextDue(record.DueAt, delivery.StatusRetrying, delivery.StatusSent, delivery.StatusPending, delivery.StatusFailed)
	}
}

func boundedHistory(r *storeRig) {
	record := plainRecord(0)
	r.save(record)
	for attempt := range delivery.MaxHistory + 5 {
		update := delivery.Update{
			ID: record.ID, Status: delivery.StatusRetrying, RetryCount: attempt + 1, At: after(attempt), DueAt: after(attempt + 1),
			Failure: &delivery.Failure{At: after(attempt), Attempt: attempt + 1, Error: fmt.Sprint("failure ", attempt)},
		}
		if err := record.Apply(update); err != nil {
			r.Fatalf("Apply: %v", err)
		}
		if err := progressDifferences(&record.Progress, &r.update(update)[0]); err != nil {
			r.Errorf("Update after %d failures: %v", attempt+1, err)
		}
	}
	r.kept(record)
}

// lateNews brings a story in the wrong order.
func lateNews(r *storeRig) {
	record := plainRecord(0)
	record.DueAt, record.ClaimedBy = after(30), "publisher"
	r.save(record)
	done := delivery.Update{ID: record.ID, Status: delivery.StatusDelivered, RetryCount: 1, At: after(9)}
	if err := record.Apply(done); err != nil {
		r.Fatalf("Apply: %v", err)
	}
	r.update(done)
	late := &delivery.LateError{ID: record.ID, Status: delivery.StatusDelivered, RetryCount: 1}
	for _, update := range []delivery.Update{
		{Status: delivery.StatusQueued, OnlyIfClaimedBy: "publisher"},
		{Status: delivery.StatusQueued},
		{Status: delivery.StatusRetrying, RetryCount: 1, DueAt: after(10), Failure: &delivery.Failure{At: after(2), Attempt: 1, Error: "busy"}},
		{Status: delivery.StatusQueued, RetryCount: 1},
		{Status: delivery.StatusSent, RetryCount: 1, DueAt: after(70)},
		{Status: delivery.StatusFailed, RetryCount: 2, DeadLetterID: "letter", Failure: &delivery.Failure{At: after(2), Attempt: 2, Error: "busy"}},
		{Status: delivery.StatusCancelled},
		{Status: delivery.StatusPending, Generation: 1},
		{Status: delivery.StatusDelivered, RetryCount: 0},
	} {
		update.ID, update.At = record.ID, after(20)
		progress, errs := r.store.Update(r.Context(), update)
		r.errors("Update to "+string(update.Status), errs, late)
		if len(progress) != 1 {
			r.Fatalf("Update: %d of progress for 1", len(progress))
		}
		if err := progressDifferences(&record.Progress, &progress[0]); err != nil {
			r.Errorf("Update: the progress that refused it: %v", err)
		}
		r.kept(record)
	}
	r.nextDue(time.Time{}, delivery.StatusPending, delivery.StatusQueued, delivery.StatusRetrying, delivery.StatusSent, delivery.StatusDelivered)
}

func tellsUpdatesApart(r *storeRig) {
	records := plainRecords(6)
	records[3].Status = delivery.StatusDelivered
	records[4].Status = delivery.StatusCancelled
	r.save(records...)
	queued := delivery.Update{ID: records[0].ID, Status: delivery.StatusQueued, At: after(9)}
	to := func(id string, change func(*delivery.Update)) delivery.Update {
		update := queued
		update.ID = id
		if change != nil {
			change(&update)
		}
		return update
	}
	updates := []delivery.Update{
		queued,
		to("nobody", nil),
		to("", nil),
		to(records[1].ID, func(u *delivery.Update) { u.Status = "QUEUED" }),
		to(records[1].ID, func(u *delivery.Update) { u.At = time.Time{} }),
		to(records[1].ID, func(u *delivery.Update) { u.RetryCount = -1 }),
		to(records[1].ID, func(u *delivery.Update) { u.Generation = -1 }),
		to(records[1].ID, func(u *delivery.Update) { u.Status = delivery.StatusRetrying }),
		to(records[1].ID, func(u *delivery.Update) { u.Acknowledged = true }),
		to(records[2].ID, nil),
		to(records[3].ID, nil),
		to(records[4].ID, func(u *delivery.Update) { u.Acknowledged, u.Status = true, delivery.StatusRead }),
		// Twice in one call is as two calls.
		to(records[5].ID, nil),
		to(records[5].ID, func(u *delivery.Update) { u.Status, u.DueAt, u.At = delivery.StatusSent, after(99), after(10) }),
		to(records[5].ID, func(u *delivery.Update) { u.At = after(11) }),
		to(records[5].ID, func(u *delivery.Update) { u.Status, u.At = delivery.StatusDelivered, after(12) }),
	}
	want := make([]error, len(updates))
	wantProgress := make([]delivery.Progress, len(updates))
	for i := range updates {
		record := recordOf(records, updates[i].ID)
		switch err := updates[i].Validate(); {
		case err != nil:
			want[i] = delivery.ErrInvalid
		case record == nil:
			want[i] = delivery.ErrNotFound
		default:
			want[i] = record.Apply(updates[i])
			wantProgress[i] = record.Progress
		}
	}
	progress, errs := r.store.Update(r.Context(), updates...)
	r.errors("Update", errs, want...)
	if len(progress) != len(updates) {
		r.Fatalf("Update of %d: %d of progress", len(updates), len(progress))
	}
	for i := range progress {
		if errors.Is(want[i], delivery.ErrInvalid) {
			continue // a store need not look the record up
		}
		if err := progressDifferences(&wantProgress[i], &progress[i]); err != nil {
			r.Errorf("Update: progress %d: %v", i, err)
		}
	}
	r.kept(records...)
	for i := range updates {
		if errors.Is(want[i], delivery.ErrInvalid) {
			_, errs := r.store.Update(r.Context(), updates[i])
			r.errors("Update", errs, delivery.ErrInvalid)
		}
	}
	r.kept(records...)
}

func recordOf(records []delivery.Record, id string) *delivery.Record {
	for i := range records {
		if records[i].ID == id {
			return &records[i]
		}
	}
	return nil
}
