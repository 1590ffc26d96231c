package deliverytest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// recordsOf is a due record for each of the queues, in the order of their
// times.
func recordsOf(status delivery.Status, queues ...string) []delivery.Record {
	records := make([]delivery.Record, len(queues))
	for i, queue := range queues {
		records[i] = dueRecord(i, status, after(i))
		records[i].Queue = queue
	}
	return records
}

func (t *storeSubtest) claimQueue(queue string, status delivery.Status, now time.Time) []string {
	t.Helper()
	claim := claimOf(status, "of "+queue, now, 100)
	claim.Queue = queue
	claimed, err := t.store.Claim(t.Context(), claim)
	if err != nil {
		t.Fatalf("Claim of %q: %v", queue, err)
	}
	for i := range claimed {
		if claimed[i].Queue != queue {
			t.Errorf("Claim of %q: got %q, which is of %q", queue, claimed[i].ID, claimed[i].Queue)
		}
	}
	return idsOf(claimed)
}

// claimsByQueue checks that a claim gets the records of its own queue only,
// also when nothing else is due, and that a due time is of a queue.
func claimsByQueue(t *storeSubtest) {
	queues := []string{"mail", "sms", "SMS", "sms ", "s_s", "s%", "письмо\x00\xff", "sms", "mail"}
	for s, status := range []delivery.Status{delivery.StatusRetrying, delivery.StatusPending, delivery.StatusQueued, delivery.StatusSent} {
		records := recordsOf(status, queues...)
		for i := range records {
			records[i].ID += "-" + string(status)
		}
		t.save(records...)
		now := after(1000 * (s + 1))
		for _, queue := range []string{"sms", "письмо\x00\xff", "nobody's", "mail"} {
			var want []string
			var due time.Time
			for i := range records {
				if records[i].Queue == queue {
					want = append(want, records[i].ID)
					if due.IsZero() {
						due = records[i].DueAt
					}
				}
			}
			t.checkNextDueOf(queue, due, status)
			if got := t.claimQueue(queue, status, now); !slices.Equal(got, want) {
				t.Errorf("Claim of %q that are %s: %q, want %q", queue, status, got, want)
			}
			if got := t.claimQueue(queue, status, now); len(got) != 0 {
				t.Errorf("Claim of %q again: %q, want none", queue, got)
			}
			if !due.IsZero() {
				due = now.Add(storeLease)
			}
			t.checkNextDueOf(queue, due, status)
		}
		t.checkNextDueOf("SMS", after(2), status)
		t.checkNextDueOf("", time.Time{}, status)
	}
}

// tellsByQueue counts and lists by queue.
func tellsByQueue(t *storeSubtest) {
	records := recordsOf(delivery.StatusPending, "mail", "sms", "SMS", "sms", "mail", "mail")
	records[3].Status, records[4].Priority, records[5].Status = delivery.StatusFailed, delivery.Urgent, delivery.StatusSent
	t.save(records...)
	for _, queue := range []string{"", "sms", "mail", "SMS", "sms ", "nobody's"} {
		of := slices.DeleteFunc(slices.Clone(records), func(r delivery.Record) bool { return queue != "" && r.Queue != queue })
		t.checkStatsOf(queue, statsOf(of))
		for _, statuses := range [][]delivery.Status{nil, {delivery.StatusFailed}, {delivery.StatusPending, delivery.StatusSent}} {
			filter := delivery.RecordFilter{Queue: queue, Statuses: statuses}
			var want []string
			for i := range of {
				if filter.Match(&of[i]) {
					want = append(want, of[i].ID)
				}
			}
			t.checkList("of queue "+queue, delivery.RecordQuery{RecordFilter: filter, Order: delivery.OldestFirst, Limit: 2}, want...)
		}
	}
	page := t.list(delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Queue: "mail"}, Limit: 1})
	other := delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Queue: "sms"}, Limit: 1, Cursor: page.Next}
	if _, err := t.store.List(t.Context(), other); !errors.Is(err, delivery.ErrCursor) {
		t.Errorf("List with the cursor of another queue: %v, want ErrCursor", err)
	}
}

// movesBetweenQueues checks that an update says the queue of a record or leaves
// it, that IDs are of the store, and that there is no record without a queue.
func movesBetweenQueues(t *storeSubtest) {
	none := plainRecord(0)
	none.Queue = ""
	t.checkErrors("Save without a queue", t.store.Save(t.Context(), none), delivery.ErrInvalid)
	t.checkMissing(none.ID)

	record := recordsOf(delivery.StatusPending, "mail")[0]
	t.save(record)
	again := record
	again.Queue = "sms"
	t.checkErrors("Save in another queue", t.store.Save(t.Context(), again), delivery.ErrExists)
	t.checkRecords(record)
	for i, update := range []delivery.Update{
		{Status: delivery.StatusQueued},
		{Status: delivery.StatusRetrying, DueAt: after(50), Queue: "sms"},
		{Status: delivery.StatusPending, DueAt: after(60)},
		{Status: delivery.StatusPending, Generation: 1, DueAt: after(70), Queue: "letters"},
		{Status: delivery.StatusPending, Generation: 0, Queue: "late"},
		{Status: delivery.StatusDelivered, Generation: 1, Queue: strings.Repeat("q", delivery.MaxIDBytes)},
	} {
		update.ID, update.At = record.ID, after(i+1)
		want := record.Apply(update)
		progress, errs := t.store.Update(t.Context(), update)
		t.checkErrors("Update", errs, want)
		if err := progressDifferences(&record.Progress, &progress[0]); err != nil {
			t.Errorf("Update %d: %v", i, err)
		}
		t.checkRecords(record)
		t.checkNextDueOf(record.Queue, record.DueAt, record.Status)
		t.checkStatsOf(record.Queue, statsOf([]delivery.Record{record}))
		t.checkStatsOf("mails", delivery.RecordStats{})
	}
}
