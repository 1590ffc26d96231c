package deliverytest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// claimsWhatIsDue claims by status and time.
func claimsWhatIsDue(t *storeSubtest) {
	now := after(100)
	for s, status := range delivery.Statuses() {
		never, early := dueRecord(4*s, status, time.Time{}), dueRecord(4*s+1, status, now.Add(-time.Hour))
		just, later := dueRecord(4*s+2, status, now), dueRecord(4*s+3, status, now.Add(time.Microsecond))
		t.save(later, just, never, early)
	}
	for s, status := range delivery.Statuses() {
		t.checkClaim(status, "w", now, 10, plainRecord(4*s+1).ID, plainRecord(4*s+2).ID)
		t.checkClaim(status, "w", now, 10)
		t.checkClaim(status, "v", now.Add(time.Microsecond), 10, plainRecord(4*s+3).ID)
	}
}

// claimsInOrder claims up to a limit, in the order in which the records are
// due.
func claimsInOrder(t *storeSubtest) {
	const many = 1000
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a fixed seed
	records := plainRecords(many)
	for i, place := range random.Perm(many) {
		records[i].DueAt = storeStart.Add(time.Duration(place) * time.Microsecond)
	}
	t.save(records...)
	slices.SortFunc(records, func(a, b delivery.Record) int { return a.DueAt.Compare(b.DueAt) })
	want := idsOf(records)
	t.checkClaim(delivery.StatusPending, "w", after(1), 1, want[0])
	t.checkClaim(delivery.StatusPending, "w", after(1), 99, want[1:100]...)
	// The other records are not due yet.
	t.checkClaim(delivery.StatusPending, "v", records[199].DueAt, many, want[100:200]...)
	t.checkClaim(delivery.StatusPending, "w", after(1), delivery.MaxClaim, want[200:]...)
	t.checkClaim(delivery.StatusPending, "w", after(1), many)
}

// claimsByPriority claims the highest priority first, and of one priority what is
// due first; but a part of a claim by the due time alone, so that no priority
// waits for ever.
func claimsByPriority(t *storeSubtest) {
	priorities := delivery.Priorities()
	var records []delivery.Record
	save := func(n int, priority delivery.Priority, due int) {
		for range n {
			record := dueRecord(len(records), delivery.StatusRetrying, after(due).Add(time.Duration(len(records))*time.Millisecond))
			record.Priority = priority
			records = append(records, record)
		}
	}
	for i := len(priorities) - 1; i >= 0; i-- {
		save(50, priorities[i], 0) // the lowest are due first
	}
	save(1, delivery.Urgent, 100)
	t.save(records...)
	claim := claimOf(delivery.StatusRetrying, "w", after(90), 10)
	check := func(what string, want []delivery.Record) {
		t.Helper()
		claimed, err := t.store.Claim(t.Context(), claim)
		if err != nil {
			t.Fatalf("Claim: %v", err)
		}
		if !slices.Equal(idsOf(claimed), idsOf(want)) {
			t.Errorf("Claim %s: %q, want %q", what, idsOf(claimed), idsOf(want))
		}
	}
	low, normal, high, urgent := records[:50], records[50:100], records[100:150], records[150:200]
	check("of the highest", urgent[:10])
	claim.DueFirst = 3
	check("of the highest and three that are due first", slices.Concat(urgent[10:17], low[:3]))
	claim.Limit, claim.DueFirst = 30, 0
	check("of the highest that are due, until there are no more", urgent[17:47])
	check("of two priorities", slices.Concat(urgent[47:], high[:27]))
	claim.DueFirst = 30
	check("of those that are due first", low[3:33])
	claim.Limit, claim.DueFirst = 200, 20
	check("of all that are due", slices.Concat(high[27:], normal, low[33:]))
	check("of nothing", nil)
	claim.Now = after(101)
	claim.Lease = storeLease
	check("of what is due later", records[200:])
}

// claimsChangeLittle checks that a claim changes two fields of a record, and
// returns all of the others as they are.
func claimsChangeLittle(t *storeSubtest) {
	statuses := delivery.Statuses()
	want := make([]delivery.Record, len(statuses))
	for i, status := range statuses {
		want[i] = fullRecord(i)
		want[i].Status = status
	}
	t.save(want...)
	now := after(5000)
	for i := range want {
		claimed := t.claim(want[i].Status, "new", now, 10)
		want[i].ClaimedBy, want[i].DueAt = "new", now.Add(storeLease)
		if len(claimed) != 1 {
			t.Fatalf("Claim: %d records, want 1", len(claimed))
		}
		if err := recordDifferences(&want[i], &claimed[0]); err != nil {
			t.Errorf("Claim: %v", err)
		}
	}
	t.checkRecords(want...)
	t.checkStats(statsOf(want))
}

// leasesEnd lets a lease expire: another claim takes the record, and the first
// claimer can neither update nor renew it.
func leasesEnd(t *storeSubtest) {
	record := dueRecord(0, delivery.StatusRetrying, after(0))
	t.save(record)
	t.checkClaim(delivery.StatusRetrying, "first", after(5), 1, record.ID)
	end := after(5).Add(storeLease)
	t.checkNextDue(end, delivery.StatusRetrying)
	t.checkClaim(delivery.StatusRetrying, "first", end.Add(-time.Microsecond), 1)
	t.checkClaim(delivery.StatusRetrying, "next", end.Add(-time.Microsecond), 1)
	t.checkClaim(delivery.StatusRetrying, "next", end, 1, record.ID)
	sent := delivery.Update{ID: record.ID, Status: delivery.StatusQueued, At: end, OnlyIfClaimedBy: "first"}
	_, errs := t.store.Update(t.Context(), sent)
	t.checkErrors("Update by a caller that has lost the claim", errs, &delivery.LateError{ID: record.ID, Status: delivery.StatusRetrying})
	t.renew("first", end.Add(time.Hour))
	t.checkNextDue(end.Add(storeLease), delivery.StatusRetrying)
	sent.OnlyIfClaimedBy = "next"
	if progress := t.update(sent)[0]; progress.ClaimedBy != "" || !progress.DueAt.IsZero() {
		t.Errorf("Update: still claimed by %q until %s", progress.ClaimedBy, progress.DueAt)
	}
	t.checkClaim(delivery.StatusQueued, "w", after(100_000), 1)
	t.checkClaim(delivery.StatusRetrying, "w", after(100_000), 1)
}

// invalidClaims claims with each field out of its bounds.
func invalidClaims(t *storeSubtest) {
	record := dueRecord(0, delivery.StatusPending, after(0))
	t.save(record)
	for field, change := range map[string]func(*delivery.Claim){
		"no Queue":            func(c *delivery.Claim) { c.Queue = "" },
		"no Status":           func(c *delivery.Claim) { c.Status = "" },
		"an unknown Status":   func(c *delivery.Claim) { c.Status = "PENDING" },
		"no Token":            func(c *delivery.Claim) { c.Token = "" },
		"no Now":              func(c *delivery.Claim) { c.Now = time.Time{} },
		"no Lease":            func(c *delivery.Claim) { c.Lease = 0 },
		"a negative Lease":    func(c *delivery.Claim) { c.Lease = -1 },
		"no Limit":            func(c *delivery.Claim) { c.Limit = 0 },
		"a negative Limit":    func(c *delivery.Claim) { c.Limit = -1 },
		"a negative DueFirst": func(c *delivery.Claim) { c.DueFirst = -1 },
		"too high a DueFirst": func(c *delivery.Claim) { c.DueFirst = c.Limit + 1 },
		"too high a Limit":    func(c *delivery.Claim) { c.Limit = delivery.MaxClaim + 1 },
	} {
		claim := claimOf(delivery.StatusPending, "w", after(1), 1)
		change(&claim)
		if claimed, err := t.store.Claim(t.Context(), claim); !errors.Is(err, delivery.ErrInvalid) || len(claimed) != 0 {
			t.Errorf("Claim with %s: %d records, %v, want ErrInvalid", field, len(claimed), err)
		}
	}
	t.checkRecords(record)
}

// renews renews the claims of a token, and no others.
func renews(t *storeSubtest) {
	records := make([]delivery.Record, 0, 20)
	for i, status := range delivery.Statuses() {
		record := dueRecord(i, status, after(30))
		record.ClaimedBy = "session"
		records = append(records, record)
	}
	for i, token := range []string{"session ", "Session", "sessio", "%", "_ession", ""} {
		record := dueRecord(20+i, delivery.StatusQueued, after(30))
		record.ClaimedBy = token
		records = append(records, record)
	}
	// The lease of the one has ended, and the other never was due.
	ended, undue := dueRecord(30, delivery.StatusPending, after(-100)), dueRecord(31, delivery.StatusQueued, time.Time{})
	ended.ClaimedBy, undue.ClaimedBy = "session", "session"
	records = append(records, ended, undue)
	t.save(records...)
	for _, until := range []time.Time{after(90), after(60), after(60), after(120)} {
		for i := range records {
			renewable := records[i].Status == delivery.StatusPending || records[i].Status == delivery.StatusQueued
			if records[i].ClaimedBy == "session" && renewable {
				records[i].DueAt = until
			}
		}
		t.renew("session", until)
		t.checkRecords(records...)
		t.checkNextDue(until, delivery.StatusPending)
		t.checkNextDue(after(30), delivery.StatusPending, delivery.StatusQueued)
	}
	t.renew("nobody", after(500))
	// A record that nobody has claimed can't be renewed, and neither can one of no
	// queue. An error is as good.
	_ = t.store.Renew(t.Context(), storeQueue, "", after(500))
	_ = t.store.Renew(t.Context(), "", "session", after(500))
	t.checkRecords(records...)

	// A record that is settled, or claimed by somebody else, is not renewed.
	claimed := t.claim(delivery.StatusPending, "other", after(120), 10)
	if len(claimed) != 2 {
		t.Errorf("Claim: %d records, want 2", len(claimed))
	}
	t.update(delivery.Update{ID: undue.ID, Status: delivery.StatusDelivered, At: after(130)})
	t.renew("session", after(140))
	t.renew("other", after(150))
	t.checkNextDue(after(150), delivery.StatusPending)
}

// renewalsEnd lets renewed claims end, of many records of several queues, and go on
// by another token.
func renewalsEnd(t *storeSubtest) {
	priorities := delivery.Priorities()
	records := make([]delivery.Record, 0, 45)
	for i := range 40 {
		record := dueRecord(i, delivery.StatusQueued, after(30))
		record.ClaimedBy, record.Priority = []string{"one", "two"}[i%2], priorities[i/2%4]
		records = append(records, record)
	}
	waiting, elsewhere := dueRecord(40, delivery.StatusPending, after(30)), dueRecord(41, delivery.StatusQueued, after(30))
	waiting.ClaimedBy, elsewhere.ClaimedBy, elsewhere.Queue = "one", "one", "elsewhere"
	t.save(append(records, waiting, elsewhere)...)
	t.renew("one", after(100))
	t.renew("two", after(200))
	t.checkRecords(elsewhere)
	t.checkNextDueOf("elsewhere", after(30), delivery.StatusQueued)
	t.checkClaim(delivery.StatusQueued, "w", after(99), 100)
	t.checkNextDue(after(100), delivery.StatusQueued)
	t.checkNextDue(time.Time{}, delivery.StatusRetrying, delivery.StatusSent)

	// What has ended is claimed by priority, the rest of it later, by somebody else.
	got := t.claim(delivery.StatusQueued, "w", after(100), 12)
	for i := range got {
		if got[i].ClaimedBy != "w" || !got[i].DueAt.Equal(after(100).Add(storeLease)) || i > 0 && got[i].Priority > got[i-1].Priority {
			t.Errorf("Claim of what was renewed: %q of priority %s by %q until %s", got[i].ID, got[i].Priority, got[i].ClaimedBy, got[i].DueAt)
		}
	}
	if len(got) != 12 || got[4].Priority != delivery.Urgent || got[5].Priority != delivery.High {
		t.Errorf("Claim of what was renewed: %q", idsOf(got))
	}
	t.renew("one", after(150)) // for what is left to it
	t.checkClaim(delivery.StatusQueued, "w", after(120), 100)
	t.checkNextDue(after(150), delivery.StatusQueued)
	t.checkNextDue(after(150), delivery.StatusPending)
	if got := t.claim(delivery.StatusQueued, "v", after(150), 100); len(got) != 8 {
		t.Errorf("Claim of what was renewed again: %q, want 8", idsOf(got))
	}
	t.renew("one", after(300))
	t.renew("one", after(250))
	t.checkNextDue(after(250), delivery.StatusPending)
	t.checkNextDue(after(100).Add(storeLease), delivery.StatusQueued)
	t.checkClaim(delivery.StatusPending, "v", after(249), 100)
	t.checkClaim(delivery.StatusPending, "v", after(250), 100, waiting.ID)
	t.update(delivery.Update{ID: records[1].ID, Status: delivery.StatusDelivered, At: after(1)})
	if got := t.claim(delivery.StatusQueued, "x", after(1000), 100); len(got) != 39 {
		t.Errorf("Claim at last: %d, want 39", len(got))
	}
}

// nextDue asks for the next due time, by status, while records change.
func nextDue(t *storeSubtest) {
	t.save(
		dueRecord(0, delivery.StatusPending, after(50)),
		dueRecord(1, delivery.StatusPending, after(40)),
		dueRecord(2, delivery.StatusPending, time.Time{}),
		dueRecord(3, delivery.StatusRetrying, after(30)),
		dueRecord(4, delivery.StatusSent, after(20)),
		dueRecord(5, delivery.StatusQueued, time.Time{}),
	)
	t.checkNextDue(after(40), delivery.StatusPending)
	t.checkNextDue(after(30), delivery.StatusPending, delivery.StatusRetrying)
	t.checkNextDue(after(20), delivery.StatusRetrying, delivery.StatusSent, delivery.StatusPending, delivery.StatusSent)
	t.checkNextDue(time.Time{}, delivery.StatusQueued)
	t.checkNextDue(time.Time{}, delivery.StatusQueued, delivery.StatusDelivered)
	t.checkNextDue(time.Time{})
	t.checkClaim(delivery.StatusPending, "w", after(45), 10, "record-0001")
	t.checkNextDue(after(50), delivery.StatusPending)
	t.checkClaim(delivery.StatusPending, "w", after(50), 10, "record-0000")
	t.checkNextDue(after(45).Add(storeLease), delivery.StatusPending)
	t.save(dueRecord(6, delivery.StatusPending, after(10)))
	t.checkNextDue(after(10), delivery.StatusPending)
	t.update(delivery.Update{ID: "record-0006", Status: delivery.StatusCancelled, At: after(11)})
	t.checkNextDue(after(45).Add(storeLease), delivery.StatusPending)
	t.update(delivery.Update{ID: "record-0004", Status: delivery.StatusDelivered, At: after(21)})
	t.checkNextDue(time.Time{}, delivery.StatusSent, delivery.StatusDelivered)
}

// timeFromArguments passes times of other centuries, which a store that reads
// the clock would get wrong.
func timeFromArguments(t *storeSubtest) {
	for i, now := range []time.Time{time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)} {
		record := dueRecord(i, delivery.StatusPending, now.Add(time.Minute))
		record.CreatedAt, record.UpdatedAt = now, now
		t.save(record)
		t.checkRecords(record)
		t.checkClaim(delivery.StatusPending, "w", now, 10)
		record.ClaimedBy, record.DueAt = "w", now.Add(time.Minute).Add(storeLease)
		t.checkClaim(delivery.StatusPending, "w", now.Add(time.Minute), 10, record.ID)
		t.checkRecords(record)
		t.checkClaim(delivery.StatusPending, "v", now.Add(time.Minute), 10)
		update := delivery.Update{ID: record.ID, Status: delivery.StatusDelivered, At: now.Add(time.Hour)}
		if err := record.Apply(update); err != nil {
			t.Fatalf("Apply: %v", err)
		}
		t.update(update)
		t.checkRecords(record)
		t.checkPurge(update.At, 10, 0)
		t.checkPurge(update.At.Add(time.Microsecond), 10, 1)
	}
}
