package deliverytest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

func claimsWhatIsDue(r *storeRig) {
	now := after(100)
	for s, status := range delivery.Statuses() {
		never, early := dueRecord(4*s, status, time.Time{}), dueRecord(4*s+1, status, now.Add(-time.Hour))
		just, later := dueRecord(4*s+2, status, now), dueRecord(4*s+3, status, now.Add(time.Microsecond))
		r.save(later, just, never, early)
	}
	for s, status := range delivery.Statuses() {
		r.claims(status, "w", now, 10, plainRecord(4*s+1).ID, plainRecord(4*s+2).ID)
		r.claims(status, "w", now, 10)
		r.claims(status, "v", now.Add(time.Microsecond), 10, plainRecord(4*s+3).ID)
	}
}

func claimsInOrder(r *storeRig) {
	const many = 1000
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a fixed seed
	records := plainRecords(many)
	for i, place := range random.Perm(many) {
		records[i].DueAt = storeStart.Add(time.Duration(place) * time.Microsecond)
	}
	r.save(records...)
	slices.SortFunc(records, func(a, b delivery.Record) int { return a.DueAt.Compare(b.DueAt) })
	want := idsOf(records)
	r.claims(delivery.StatusPending, "w", after(1), 1, want[0])
	r.claims(delivery.StatusPending, "w", after(1), 99, want[1:100]...)
	// Those in between are not due yet.
	r.claims(delivery.StatusPending, "v", records[199].DueAt, many, want[100:200]...)
	r.claims(delivery.StatusPending, "w", after(1), delivery.MaxClaim, want[200:]...)
	r.claims(delivery.StatusPending, "w", after(1), many)
}

// claimsChangeLittle tells that of a record that is claimed two fields change,
// and that whoever claims it gets all others.
func claimsChangeLittle(r *storeRig) {
	statuses := delivery.Statuses()
	want := make([]delivery.Record, len(statuses))
	for i, status := range statuses {
		want[i] = fullRecord(i)
		want[i].Status = status
	}
	r.save(want...)
	now := after(5000)
	for i := range want {
		claimed := r.claim(want[i].Status, "new", now, 10)
		want[i].ClaimedBy, want[i].DueAt = "new", now.Add(storeLease)
		if len(claimed) != 1 {
			r.Fatalf("Claim: %d records, want 1", len(claimed))
		}
		if err := recordDifferences(&want[i], &claimed[0]); err != nil {
			r.Errorf("Claim: %v", err)
		}
	}
	r.kept(want...)
	r.counts(delivery.RecordStats{Total: len(want), Counts: countsOf(want), OldestPending: want[0].CreatedAt})
}

func leasesEnd(r *storeRig) {
	record := dueRecord(0, delivery.StatusRetrying, after(0))
	r.save(record)
	r.claims(delivery.StatusRetrying, "dead", after(5), 1, record.ID)
	end := after(5).Add(storeLease)
	r.nextDue(end, delivery.StatusRetrying)
	r.claims(delivery.StatusRetrying, "dead", end.Add(-time.Microsecond), 1)
	r.claims(delivery.StatusRetrying, "heir", end.Add(-time.Microsecond), 1)
	r.claims(delivery.StatusRetrying, "heir", end, 1, record.ID)
	sent := delivery.Update{ID: record.ID, Status: delivery.StatusQueued, At: end, OnlyIfClaimedBy: "dead"}
	_, errs := r.store.Update(r.Context(), sent)
	r.errors("Update by who has lost the claim", errs, &delivery.LateError{ID: record.ID, Status: delivery.StatusRetrying})
	r.renew("dead", end.Add(time.Hour), 0)
	r.nextDue(end.Add(storeLease), delivery.StatusRetrying)
	sent.OnlyIfClaimedBy = "heir"
	if progress := r.update(sent)[0]; progress.ClaimedBy != "" || !progress.DueAt.IsZero() {
		r.Errorf("Update: still claimed by %q until %s", progress.ClaimedBy, progress.DueAt)
	}
	r.claims(delivery.StatusQueued, "w", after(100_000), 1)
	r.claims(delivery.StatusRetrying, "w", after(100_000), 1)
}

func invalidClaims(r *storeRig) {
	record := dueRecord(0, delivery.StatusPending, after(0))
	r.save(record)
	for field, change := range map[string]func(*delivery.Claim){
		"no Status":         func(c *delivery.Claim) { c.Status = "" },
		"an unknown Status": func(c *delivery.Claim) { c.Status = "PENDING" },
		"no Token":          func(c *delivery.Claim) { c.Token = "" },
		"no Now":            func(c *delivery.Claim) { c.Now = time.Time{} },
		"no Lease":          func(c *delivery.Claim) { c.Lease = 0 },
		"a negative Lease":  func(c *delivery.Claim) { c.Lease = -1 },
		"no Limit":          func(c *delivery.Claim) { c.Limit = 0 },
		"a negative Limit":  func(c *delivery.Claim) { c.Limit = -1 },
		"too high a Limit":  func(c *delivery.Claim) { c.Limit = delivery.MaxClaim + 1 },
	} {
		claim := claimOf(delivery.StatusPending, "w", after(1), 1)
		change(&claim)
		if claimed, err := r.store.Claim(r.Context(), claim); !errors.Is(err, delivery.ErrInvalid) || len(claimed) != 0 {
			r.Errorf("Claim with %s: %d records, %v, want ErrInvalid", field, len(claimed), err)
		}
	}
	r.kept(record)
}

func renews(r *storeRig) {
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
	// One whose lease has ended, and one that never was due.
	ended, undue := dueRecord(30, delivery.StatusPending, after(-100)), dueRecord(31, delivery.StatusQueued, time.Time{})
	ended.ClaimedBy, undue.ClaimedBy = "session", "session"
	records = append(records, ended, undue)
	r.save(records...)
	for _, until := range []time.Time{after(90), after(60), after(60), after(120)} {
		renewed := 0
		for i := range records {
			renewable := records[i].Status == delivery.StatusPending || records[i].Status == delivery.StatusQueued
			if records[i].ClaimedBy == "session" && renewable {
				records[i].DueAt = until
				renewed++
			}
		}
		r.renew("session", until, renewed)
		r.kept(records...)
		r.nextDue(until, delivery.StatusPending)
		r.nextDue(after(30), delivery.StatusPending, delivery.StatusQueued)
	}
	r.renew("nobody", after(500), 0)
	// What nobody has claimed is nobody's to renew. An error is as good.
	if renewed, _ := r.store.Renew(r.Context(), "", after(500)); renewed != 0 {
		r.Errorf("Renew without a token: %d, want 0", renewed)
	}
	r.kept(records...)

	// What is settled, or claimed by somebody else, is renewed no more.
	claimed := r.claim(delivery.StatusPending, "other", after(120), 10)
	if len(claimed) != 2 {
		r.Errorf("Claim: %d records, want 2", len(claimed))
	}
	r.update(delivery.Update{ID: undue.ID, Status: delivery.StatusDelivered, At: after(130)})
	r.renew("session", after(140), 1)
	r.renew("other", after(150), 2)
	r.nextDue(after(150), delivery.StatusPending)
}

func nextDue(r *storeRig) {
	r.save(
		dueRecord(0, delivery.StatusPending, after(50)),
		dueRecord(1, delivery.StatusPending, after(40)),
		dueRecord(2, delivery.StatusPending, time.Time{}),
		dueRecord(3, delivery.StatusRetrying, after(30)),
		dueRecord(4, delivery.StatusSent, after(20)),
		dueRecord(5, delivery.StatusQueued, time.Time{}),
	)
	r.nextDue(after(40), delivery.StatusPending)
	r.nextDue(after(30), delivery.StatusPending, delivery.StatusRetrying)
	r.nextDue(after(20), delivery.StatusRetrying, delivery.StatusSent, delivery.StatusPending, delivery.StatusSent)
	r.nextDue(time.Time{}, delivery.StatusQueued)
	r.nextDue(time.Time{}, delivery.StatusQueued, delivery.StatusDelivered)
	r.nextDue(time.Time{})
	r.claims(delivery.StatusPending, "w", after(45), 10, "record-0001")
	r.nextDue(after(50), delivery.StatusPending)
	r.claims(delivery.StatusPending, "w", after(50), 10, "record-0000")
	r.nextDue(after(45).Add(storeLease), delivery.StatusPending)
	r.save(dueRecord(6, delivery.StatusPending, after(10)))
	r.nextDue(after(10), delivery.StatusPending)
	r.update(delivery.Update{ID: "record-0006", Status: delivery.StatusCancelled, At: after(11)})
	r.nextDue(after(45).Add(storeLease), delivery.StatusPending)
	r.update(delivery.Update{ID: "record-0004", Status: delivery.StatusDelivered, At: after(21)})
	r.nextDue(time.Time{}, delivery.StatusSent, delivery.StatusDelivered)
}

// timeFromArguments works in another century than the clock's.
func timeFromArguments(r *storeRig) {
	for i, now := range []time.Time{time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)} {
		record := dueRecord(i, delivery.StatusPending, now.Add(time.Minute))
		record.CreatedAt, record.UpdatedAt = now, now
		r.save(record)
		r.kept(record)
		r.claims(delivery.StatusPending, "w", now, 10)
		record.ClaimedBy, record.DueAt = "w", now.Add(time.Minute).Add(storeLease)
		r.claims(delivery.StatusPending, "w", now.Add(time.Minute), 10, record.ID)
		r.kept(record)
		r.claims(delivery.StatusPending, "v", now.Add(time.Minute), 10)
		update := delivery.Update{ID: record.ID, Status: delivery.StatusDelivered, At: now.Add(time.Hour)}
		if err := record.Apply(update); err != nil {
			r.Fatalf("Apply: %v", err)
		}
		r.update(update)
		r.kept(record)
		r.purge(update.At, 10, 0)
		r.purge(update.At.Add(time.Microsecond), 10, 1)
	}
}
