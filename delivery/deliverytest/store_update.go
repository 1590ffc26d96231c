package deliverytest

import (
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// transitions applies an update to every status to a record in every status, in
// the same, a later and an earlier generation and attempt.
func transitions(t *storeSubtest) {
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
			for _, change := range []func(*delivery.Record, *delivery.Update){
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
					u.OnlyIfWaiting, r.DueAt = to == delivery.StatusRetrying, after(9000)
				},
				func(_ *delivery.Record, u *delivery.Update) { u.OnlyIfWaiting = to == delivery.StatusRetrying },
				func(r *delivery.Record, u *delivery.Update) {
					r.ClaimedBy, r.DueAt, u.OnlyIfWaiting = "p", after(9000), to == delivery.StatusRetrying
				},
				func(r *delivery.Record, u *delivery.Update) {
					u.Acknowledged, r.SentAt = to == delivery.StatusDelivered || to == delivery.StatusRead, after(3)
				},
				func(_ *delivery.Record, u *delivery.Update) {
					u.Acknowledged, u.Generation = to == delivery.StatusDelivered || to == delivery.StatusRead, 0
				},
			} {
				add(func(record *delivery.Record, update *delivery.Update) {
					record.Status, update.Status = from, to
					change(record, update)
				})
			}
		}
	}
	t.save(records...)
	progress, errs := t.store.Update(t.Context(), updates...)
	want := make([]error, len(updates))
	before := make([]delivery.Record, len(records))
	copy(before, records)
	for i := range updates {
		want[i] = records[i].Apply(updates[i])
	}
	if len(errs) != len(want) || len(progress) != len(want) {
		t.Fatalf("Update of %d: %d of progress, %d errors", len(want), len(progress), len(errs))
	}
	for i := range want {
		if !sameError(want[i], errs[i]) {
			t.Errorf("Update: error is %v, want %v\nof %+v\nby %+v", errs[i], want[i], before[i].Progress, updates[i])
		}
		if err := progressDifferences(&records[i].Progress, &progress[i]); err != nil {
			t.Errorf("Update: %v\nof %+v\nby %+v", err, before[i].Progress, updates[i])
		}
	}
	t.checkRecords(records...)
	t.checkStats(statsOf(records))
}

// wholeLife takes one message through failure, dead letter, replay and
// acknowledgment.
func wholeLife(t *storeSubtest) {
	record := plainRecord(0)
	record.RequireAck, record.ClaimedBy, record.DueAt = true, "publisher", after(30)
	other := plainRecord(1)
	t.save(record, other)
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
			t.Fatalf("Apply of step %d: %v", i, err)
		}
		// A repeated update succeeds, unless it depends on a claim.
		for range 2 {
			if err := progressDifferences(&record.Progress, &t.update(update)[0]); err != nil {
				t.Errorf("Update of step %d to %s: %v", i, update.Status, err)
			}
			t.checkRecords(record, other)
			if update.OnlyIfClaimedBy != "" {
				break
			}
		}
		t.checkNextDue(record.DueAt, delivery.StatusRetrying, delivery.StatusSent, delivery.StatusPending, delivery.StatusFailed)
	}
}

// boundedHistory updates with more failures than a history holds.
func boundedHistory(t *storeSubtest) {
	record := plainRecord(0)
	t.save(record)
	for attempt := range delivery.MaxHistory + 5 {
		update := delivery.Update{
			ID: record.ID, Status: delivery.StatusRetrying, RetryCount: attempt + 1, At: after(attempt), DueAt: after(attempt + 1),
			Failure: &delivery.Failure{At: after(attempt), Attempt: attempt + 1, Error: fmt.Sprint("failure ", attempt)},
		}
		if err := record.Apply(update); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		if err := progressDifferences(&record.Progress, &t.update(update)[0]); err != nil {
			t.Errorf("Update after %d failures: %v", attempt+1, err)
		}
	}
	t.checkRecords(record)
}

// lateNews applies updates that come too late: each is refused, and changes
// nothing.
func lateNews(t *storeSubtest) {
	record := plainRecord(0)
	record.DueAt, record.ClaimedBy = after(30), "publisher"
	t.save(record)
	done := delivery.Update{ID: record.ID, Status: delivery.StatusDelivered, RetryCount: 1, At: after(9)}
	if err := record.Apply(done); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	t.update(done)
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
		progress, errs := t.store.Update(t.Context(), update)
		t.checkErrors("Update to "+string(update.Status), errs, late)
		if len(progress) != 1 {
			t.Fatalf("Update: %d of progress for 1", len(progress))
		}
		if err := progressDifferences(&record.Progress, &progress[0]); err != nil {
			t.Errorf("Update: the progress that refused it: %v", err)
		}
		t.checkRecords(record)
	}
	t.checkNextDue(time.Time{}, delivery.StatusPending, delivery.StatusQueued, delivery.StatusRetrying, delivery.StatusSent, delivery.StatusDelivered)
}

// tellsUpdatesApart makes updates of which some are invalid, late, or for
// records that are missing: each has its own error.
func tellsUpdatesApart(t *storeSubtest) {
	records := plainRecords(6)
	records[3].Status = delivery.StatusDelivered
	records[4].Status = delivery.StatusCancelled
	t.save(records...)
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
		// Two updates of a record in one call are like two calls.
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
	progress, errs := t.store.Update(t.Context(), updates...)
	t.checkErrors("Update", errs, want...)
	if len(progress) != len(updates) {
		t.Fatalf("Update of %d: %d of progress", len(updates), len(progress))
	}
	for i := range progress {
		if errors.Is(want[i], delivery.ErrInvalid) {
			continue // a store need not read the record
		}
		if err := progressDifferences(&wantProgress[i], &progress[i]); err != nil {
			t.Errorf("Update: progress %d: %v", i, err)
		}
	}
	t.checkRecords(records...)
	for i := range updates {
		if errors.Is(want[i], delivery.ErrInvalid) {
			_, errs := t.store.Update(t.Context(), updates[i])
			t.checkErrors("Update", errs, delivery.ErrInvalid)
		}
	}
	t.checkRecords(records...)
}

func recordOf(records []delivery.Record, id string) *delivery.Record {
	for i := range records {
		if records[i].ID == id {
			return &records[i]
		}
	}
	return nil
}
