package deliverytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// concurrentStep is what one of several callers does to a record: a claim, or
// else an update.
type concurrentStep struct {
	name   string
	update delivery.Update
	claim  *delivery.Claim
}

// outcome carries the step out, and describes what its caller is told of the
// record.
func (s *concurrentStep) outcome(ctx context.Context, store delivery.Store, id string) string {
	if s.claim != nil {
		claimed, err := store.Claim(ctx, *s.claim)
		if err != nil {
			return "failed: " + err.Error()
		}
		if record := recordOf(claimed, id); record != nil {
			return "claimed: " + describe(&record.Progress)
		}
		return "not claimed"
	}
	update := s.update
	update.ID = id
	progress, errs := store.Update(ctx, update)
	if len(progress) != 1 {
		return fmt.Sprintf("%d of progress", len(progress))
	}
	return outcomeOf(errors.Join(errs...), &progress[0])
}

// apply is outcome on a record that no other caller changes.
func (s *concurrentStep) apply(record *delivery.Record) string {
	if s.claim != nil {
		if record.Status != s.claim.Status || record.DueAt.IsZero() || record.DueAt.After(s.claim.Now) {
			return "not claimed"
		}
		record.ClaimedBy, record.DueAt = s.claim.Token, s.claim.Now.Add(s.claim.Lease)
		return "claimed: " + describe(&record.Progress)
	}
	return outcomeOf(record.Apply(s.update), &record.Progress)
}

func outcomeOf(err error, progress *delivery.Progress) string {
	switch {
	case errors.Is(err, delivery.ErrLate):
		return "late: " + describe(progress)
	case errors.Is(err, delivery.ErrNotAwaited):
		return "not awaited: " + describe(progress)
	case err != nil:
		return "failed: " + err.Error()
	}
	return "done: " + describe(progress)
}

// describe is the progress in one line.
func describe(p *delivery.Progress) string {
	return fmt.Sprintf("%s %d/%d, %d failures, due %d by %q, changed %d, sent %d, delivered %d",
		p.Status, p.Generation, p.RetryCount, len(p.History), p.DueAt.Unix(), p.ClaimedBy, p.UpdatedAt.Unix(), p.SentAt.Unix(), p.DeliveredAt.Unix())
}

// concurrentSteps are the steps that several callers may take at once.
func concurrentSteps() []concurrentStep {
	failure := &delivery.Failure{At: after(2), Error: "busy"}
	claim := func(token string, status delivery.Status) *delivery.Claim {
		claim := claimOf(status, token, after(10), delivery.MaxClaim)
		return &claim
	}
	return []concurrentStep{
		{name: "confirm", update: delivery.Update{Status: delivery.StatusQueued, At: after(1), OnlyIfClaimedBy: "p"}},
		{name: "queue", update: delivery.Update{Status: delivery.StatusQueued, At: after(2)}},
		{name: "retry", update: delivery.Update{Status: delivery.StatusRetrying, RetryCount: 1, At: after(3), DueAt: after(8), Failure: failure}},
		{name: "put off", update: delivery.Update{Status: delivery.StatusRetrying, At: after(4), DueAt: after(9)}},
		{name: "wake", update: delivery.Update{Status: delivery.StatusRetrying, At: after(11), DueAt: after(7), OnlyIfWaiting: true}},
		{name: "fail", update: delivery.Update{Status: delivery.StatusFailed, RetryCount: 1, At: after(5), Failure: failure, DeadLetterID: "letter"}},
		{name: "send", update: delivery.Update{Status: delivery.StatusSent, At: after(6), DueAt: after(60)}},
		{name: "deliver", update: delivery.Update{Status: delivery.StatusDelivered, At: after(7)}},
		{name: "acknowledge", update: delivery.Update{Status: delivery.StatusRead, At: after(8), Acknowledged: true}},
		{name: "cancel", update: delivery.Update{Status: delivery.StatusCancelled, At: after(10)}},
		{name: "replay", update: delivery.Update{Status: delivery.StatusPending, Generation: 1, At: after(9), DueAt: after(10), ClaimedBy: "p"}},
		{name: "claim pending", claim: claim("v", delivery.StatusPending)},
		{name: "claim pending, too", claim: claim("w", delivery.StatusPending)},
		{name: "claim retrying", claim: claim("w", delivery.StatusRetrying)},
	}
}

// updatesAtOnce has a few callers change one record at once. What each caller
// is told, and what becomes of the record, must be as if they had come in some
// order.
func updatesAtOnce(t *storeSubtest) {
	const rounds, callers = 80, 4
	steps := concurrentSteps()
	random := rand.New(rand.NewPCG(6, 7)) //nolint:gosec // a fixed seed
	for round := range rounds {
		record := dueRecord(round, delivery.StatusPending, after(5))
		record.ClaimedBy = "p"
		t.save(record)
		var now [callers]*concurrentStep
		for i, step := range random.Perm(len(steps))[:callers] {
			now[i] = &steps[step]
		}
		var outcomes [callers]string
		t.concurrently(callers, func(i int, store delivery.Store) {
			outcomes[i] = now[i].outcome(t.Context(), store, record.ID)
		})
		end := describe(&t.get(record.ID)[0].Progress)
		explained := false
		for _, order := range permutations(callers) {
			explained = explained || explains(record, now[:], order, outcomes[:], end)
		}
		if !explained {
			t.Errorf("no order of the steps explains what came of them: the record is %s", end)
			for i := range now {
				t.Logf("  %s: %s", now[i].name, outcomes[i])
			}
			return
		}
	}
}

// explains returns whether the steps in this order have these outcomes and this
// end.
func explains(record delivery.Record, steps []*concurrentStep, order []int, outcomes []string, end string) bool {
	for _, i := range order {
		if steps[i].apply(&record) != outcomes[i] {
			return false
		}
	}
	return describe(&record.Progress) == end
}

// permutations are all orders of n numbers.
func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, order := range permutations(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(order), at, n-1))
		}
	}
	return all
}

// concurrently runs n calls at once, on the stores in turn.
func (t *storeSubtest) concurrently(n int, run func(i int, store delivery.Store)) {
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			run(i, t.storeAt(i))
		})
	}
	close(start)
	all.Wait()
}

// savesAtOnce has several callers save the same records: each is saved once.
func savesAtOnce(t *storeSubtest) {
	const callers, count = 8, 40
	saved := make([][]error, callers)
	t.concurrently(callers, func(i int, store delivery.Store) {
		records := plainRecords(count)
		for j := range records {
			records[j].Subject = fmt.Sprint("by ", i)
		}
		saved[i] = make([]error, count)
		for j := range records {
			if errs := store.Save(t.Context(), records[j]); errs != nil {
				saved[i][j] = errors.Join(errs...)
			}
		}
	})
	for j, got := range t.get(idsOf(plainRecords(count))...) {
		winners := 0
		for i := range saved {
			switch err := saved[i][j]; {
			case err == nil:
				winners++
				if got.Subject != fmt.Sprint("by ", i) {
					t.Errorf("record %s was saved by %d, but is %s", got.ID, i, got.Subject)
				}
			case !errors.Is(err, delivery.ErrExists):
				t.Errorf("Save: %v, want nil or ErrExists", err)
			}
		}
		if winners != 1 {
			t.Errorf("record %s was saved by %d of those who tried, want 1", got.ID, winners)
		}
	}
	t.checkStats(delivery.RecordStats{Total: count, Counts: countsOf(plainRecords(count)), OldestPending: after(0)})
}

// claimsAtOnce has several callers claim: each record is claimed once.
func claimsAtOnce(t *storeSubtest) {
	const callers, count = 8, 500
	records := plainRecords(count)
	for i := range records {
		records[i].DueAt = after(i)
	}
	t.save(records...)
	var mu sync.Mutex
	claims := map[string][]string{}
	t.concurrently(callers, func(i int, store delivery.Store) {
		token := fmt.Sprint("worker ", i)
		for {
			claimed, err := store.Claim(t.Context(), claimOf(delivery.StatusPending, token, after(count), 1+i*3))
			if err != nil {
				t.Errorf("Claim: %v", err)
				return
			}
			mu.Lock()
			for i := range claimed {
				claims[claimed[i].ID] = append(claims[claimed[i].ID], token)
			}
			mu.Unlock()
			if len(claimed) == 0 {
				return
			}
		}
	})
	for _, got := range t.get(idsOf(records)...) {
		if by := claims[got.ID]; len(by) != 1 || got.ClaimedBy != by[0] {
			t.Errorf("record %s is claimed by %q, and was claimed by %q", got.ID, got.ClaimedBy, by)
		}
	}
}

// batchesCrosswise saves and updates the same records in opposite orders at
// once, which deadlocks a store that locks them in the order of the call.
func batchesCrosswise(t *storeSubtest) {
	const rounds, count = 20, 40
	for round := range rounds {
		errs := make([][]error, 2)
		t.concurrently(2, func(i int, store delivery.Store) {
			records := plainRecords(count)
			if i == 1 {
				slices.Reverse(records)
			}
			for j := range records {
				records[j].ID = fmt.Sprintf("round-%02d-%s", round, records[j].ID)
			}
			errs[i] = store.Save(t.Context(), records...)
		})
		fresh := 0
		for _, err := range slices.Concat(padded(errs[0], count), padded(errs[1], count)) {
			if err == nil {
				fresh++
			} else if !errors.Is(err, delivery.ErrExists) {
				t.Fatalf("Save of the same records in opposite orders: %v, want nil or ErrExists", err)
			}
		}
		if fresh != count {
			t.Errorf("Save of the same %d records in opposite orders: %d were new", count, fresh)
		}
	}
	t.updateCrosswise(rounds, count)
}

// updateCrosswise updates the records of the first round in opposite orders,
// while another caller claims them.
func (t *storeSubtest) updateCrosswise(rounds, count int) {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = "round-00-" + plainRecord(i).ID
	}
	t.concurrently(3, func(i int, store delivery.Store) {
		if i == 2 {
			for range rounds {
				if _, err := store.Claim(t.Context(), claimOf(delivery.StatusRetrying, "w", after(1000), count)); err != nil {
					t.Errorf("Claim of what others change: %v", err)
				}
			}
			return
		}
		for round := range rounds {
			updates := make([]delivery.Update, count)
			for j := range updates {
				updates[j] = delivery.Update{
					ID: ids[j], Status: delivery.StatusRetrying, RetryCount: round + 1, At: after(round), DueAt: after(round),
					Failure: &delivery.Failure{At: after(round), Attempt: round + 1, Error: "busy"},
				}
			}
			if i == 1 {
				slices.Reverse(updates)
			}
			_, errs := store.Update(t.Context(), updates...)
			for _, err := range errs {
				if err != nil && !errors.Is(err, delivery.ErrLate) {
					t.Errorf("Update of the same records in opposite orders: %v, want nil or ErrLate", err)
					return
				}
			}
		}
	})
	for _, got := range t.get(ids...) {
		if got.RetryCount != rounds || len(got.History) != delivery.MaxHistory || got.History[delivery.MaxHistory-1].Attempt != rounds {
			t.Errorf("record %s has %d failures, the last %+v, want %d", got.ID, got.RetryCount, got.History, rounds)
		}
	}
}

// padded is the errors of a call for n things, with a nil for each when there
// were none.
func padded(errs []error, n int) []error {
	if errs == nil {
		return make([]error, n)
	}
	return errs
}

// everythingAtOnce has several workers claim and update what is due, while
// others save, list and purge.
func everythingAtOnce(t *storeSubtest) {
	const workers = 4
	b := busyStore{storeSubtest: t, records: plainRecords(480)}
	for i := range b.records {
		b.records[i].DueAt = after(0)
	}
	b.sent = make([]atomic.Int64, len(b.records))
	half := len(b.records) / 2
	t.save(b.records[:half]...)
	t.concurrently(workers+3, func(i int, store delivery.Store) {
		var err error
		switch i {
		default:
			err = b.work(fmt.Sprint("worker ", i), store)
		case workers:
			err = b.saveEach(store, b.records[half:])
		case workers + 1:
			err = b.look(store)
		case workers + 2:
			err = b.purgeSome(store, half)
		}
		if err != nil {
			b.done.Add(int64(len(b.records))) // so that the others end
			t.Errorf("everything at once: %v", err)
		}
	})
	if t.Failed() {
		return
	}
	for i := range b.sent {
		if n := b.sent[i].Load(); n != 1 {
			t.Errorf("record %d was sent %d times, want once", i, n)
		}
	}
	left := t.listAll(delivery.RecordQuery{Limit: 100}, nil)
	if want := len(b.records) - int(b.purged.Load()); len(left) != want {
		t.Errorf("%d records are left, want %d", len(left), want)
	}
	t.checkStats(statsOf(left))
	t.checkPurge(after(10), 2*len(b.records), len(left))
}

// busyStore is a store that several callers use, each in its own way.
type busyStore struct {
	*storeSubtest
	records      []delivery.Record
	sent         []atomic.Int64 // how often, by record
	done, purged atomic.Int64   // how many records
}

func (b *busyStore) busy() bool { return b.done.Load() < int64(len(b.records)) }

// work claims what is due, and updates it to delivered.
func (b *busyStore) work(token string, store delivery.Store) error {
	for b.busy() {
		claimed, err := store.Claim(b.Context(), claimOf(delivery.StatusPending, token, after(1), 7))
		if err != nil {
			return fmt.Errorf("claiming: %w", err)
		}
		for i := range claimed {
			queued := delivery.Update{ID: claimed[i].ID, Status: delivery.StatusQueued, At: after(2), OnlyIfClaimedBy: token}
			delivered := delivery.Update{ID: claimed[i].ID, Status: delivery.StatusDelivered, At: after(3)}
			if _, errs := store.Update(b.Context(), queued, delivered); errs != nil {
				return fmt.Errorf("updating what was claimed: %w", errors.Join(errs...))
			}
			var number int
			if _, err := fmt.Sscanf(claimed[i].ID, "record-%d", &number); err != nil {
				return err
			}
			b.sent[number].Add(1)
			b.done.Add(1)
		}
		if len(claimed) == 0 {
			sleep(b.Context(), time.Millisecond)
		}
	}
	return nil
}

// saveEach saves the records one by one.
func (b *busyStore) saveEach(store delivery.Store, records []delivery.Record) error {
	for i := range records {
		if err := errors.Join(store.Save(b.Context(), records[i])...); err != nil {
			return err
		}
	}
	return nil
}

// look lists, counts, and does whatever else changes nothing.
func (b *busyStore) look(store delivery.Store) error {
	for b.busy() && !b.Failed() {
		_, listed := store.List(b.Context(), delivery.RecordQuery{Limit: 50})
		_, stats := store.Stats(b.Context(), "")
		_, due := store.NextDue(b.Context(), storeQueue, delivery.StatusPending)
		renewed := store.Renew(b.Context(), storeQueue, "nobody", after(9))
		if err := errors.Join(listed, stats, due, renewed); err != nil {
			return err
		}
	}
	return nil
}

// purgeSome purges until so many records are done.
func (b *busyStore) purgeSome(store delivery.Store, until int) error {
	for b.done.Load() < int64(until) && !b.Failed() {
		n, err := store.Purge(b.Context(), storeQueue, after(10), 5)
		b.purged.Add(int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

// cancelledCallers cancels the contexts of half of the callers, while a store
// may be serving several callers together. The others must succeed. In each
// round more callers have come before the contexts end, and a little more time
// passes: some calls have not begun then, some are under way, and some are
// over.
func cancelledCallers(t *storeSubtest) {
	const callers, rounds = 32, 8
	for round := range rounds {
		outcomes := make([]error, callers)
		ctx, cancel := context.WithCancel(t.Context())
		var came atomic.Int64
		enough := make(chan struct{})
		t.concurrently(callers+1, func(i int, store delivery.Store) {
			if i == callers {
				<-enough
				sleep(ctx, time.Duration(round)*200*time.Microsecond)
				cancel()
				return
			}
			if came.Add(1) == int64(callers*(round+1)/rounds) {
				close(enough)
			}
			mine := t.Context()
			if i%2 == 0 {
				mine = ctx
			}
			record := plainRecord(round*callers + i)
			outcomes[i] = errors.Join(store.Save(mine, record)...)
			if outcomes[i] == nil {
				_, errs := store.Update(mine, delivery.Update{ID: record.ID, Status: delivery.StatusQueued, At: after(1)})
				outcomes[i] = errors.Join(errs...)
			}
		})
		for i, err := range outcomes {
			switch {
			case err == nil:
				if got := t.get(plainRecord(round*callers + i).ID)[0]; got.Status != delivery.StatusQueued {
					t.Errorf("Update: a record is %s after an update to queued", got.Status)
				}
			case i%2 == 1:
				t.Errorf("a caller that stayed: %v", err)
			case !errors.Is(err, context.Canceled):
				t.Errorf("a caller that left: %v, want context.Canceled", err)
			}
		}
		cancel()
	}
}
