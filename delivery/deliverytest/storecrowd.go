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

// storeStep is what one of a crowd does to a record.
type storeStep struct {
	name   string
	update delivery.Update
	claim  *delivery.Claim
}

// outcome is what the step's caller is told of the record.
func (s *storeStep) outcome(ctx context.Context, store delivery.Store, id string) string {
	if s.claim != nil {
		claimed, err := store.Claim(ctx, *s.claim)
		if err != nil {
			return "failed: " + err.Error()
		}
		if record := recordOf(claimed, id); record != nil {
			return "claimed: " + told(&record.Progress)
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

// apply is outcome, of a record that nobody else has to do with.
func (s *storeStep) apply(record *delivery.Record) string {
	if s.claim != nil {
		if record.Status != s.claim.Status || record.DueAt.IsZero() || record.DueAt.After(s.claim.Now) {
			return "not claimed"
		}
		record.ClaimedBy, record.DueAt = s.claim.Token, s.claim.Now.Add(s.claim.Lease)
		return "claimed: " + told(&record.Progress)
	}
	return outcomeOf(record.Apply(s.update), &record.Progress)
}

func outcomeOf(err error, progress *delivery.Progress) string {
	switch {
	case errors.Is(err, delivery.ErrLate):
		return "late: " + told(progress)
	case errors.Is(err, delivery.ErrNotAwaited):
		return "not awaited: " + told(progress)
	case err != nil:
		return "failed: " + err.Error()
	}
	return "done: " + told(progress)
}

func told(p *delivery.Progress) string {
	return fmt.Sprintf("%s %d/%d, %d failures, due %d by %q, changed %d, sent %d, delivered %d",
		p.Status, p.Generation, p.RetryCount, len(p.History), p.DueAt.Unix(), p.ClaimedBy, p.UpdatedAt.Unix(), p.SentAt.Unix(), p.DeliveredAt.Unix())
}

// crowdSteps is what a crowd may do at once.
func crowdSteps() []storeStep {
	failure := &delivery.Failure{At: after(2), Error: "busy"}
	claim := func(token string, status delivery.Status) *delivery.Claim {
		claim := claimOf(status, token, after(10), delivery.MaxClaim)
		return &claim
	}
	return []storeStep{
		{name: "confirm", update: delivery.Update{Status: delivery.StatusQueued, At: after(1), OnlyIfClaimedBy: "p"}},
		{name: "queue", update: delivery.Update{Status: delivery.StatusQueued, At: after(2)}},
		{name: "retry", update: delivery.Update{Status: delivery.StatusRetrying, RetryCount: 1, At: after(3), DueAt: after(8), Failure: failure}},
		{name: "put off", update: delivery.Update{Status: delivery.StatusRetrying, At: after(4), DueAt: after(9)}},
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

// updatesAtOnce lets a few change one record at once. What each is told, and
// what becomes of the record, has to be as if they had come in some order.
func updatesAtOnce(r *storeRig) {
	const rounds, crowd = 80, 4
	steps := crowdSteps()
	random := rand.New(rand.NewPCG(6, 7)) //nolint:gosec // a fixed seed
	for round := range rounds {
		record := dueRecord(round, delivery.StatusPending, after(5))
		record.ClaimedBy = "p"
		r.save(record)
		var now [crowd]*storeStep
		for i, step := range random.Perm(len(steps))[:crowd] {
			now[i] = &steps[step]
		}
		var outcomes [crowd]string
		r.atOnce(crowd, func(i int, store delivery.Store) {
			outcomes[i] = now[i].outcome(r.Context(), store, record.ID)
		})
		end := told(&r.get(record.ID)[0].Progress)
		explained := false
		for _, order := range permutations(crowd) {
			explained = explained || explains(record, now[:], order, outcomes[:], end)
		}
		if !explained {
			r.Errorf("no order of the steps explains what came of them: the record is %s", end)
			for i := range now {
				r.Logf("  %s: %s", now[i].name, outcomes[i])
			}
			return
		}
	}
}

func explains(record delivery.Record, steps []*storeStep, order []int, outcomes []string, end string) bool {
	for _, i := range order {
		if steps[i].apply(&record) != outcomes[i] {
			return false
		}
	}
	return told(&record.Progress) == end
}

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

// atOnce runs n at once, with the stores in turn.
func (r *storeRig) atOnce(n int, run func(i int, store delivery.Store)) {
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			run(i, r.any(i))
		})
	}
	close(start)
	all.Wait()
}

func savesAtOnce(r *storeRig) {
	const crowd, count = 8, 40
	saved := make([][]error, crowd)
	r.atOnce(crowd, func(i int, store delivery.Store) {
		records := plainRecords(count)
		for j := range records {
			records[j].Subject = fmt.Sprint("by ", i)
		}
		saved[i] = make([]error, count)
		for j := range records {
			if errs := store.Save(r.Context(), records[j]); errs != nil {
				saved[i][j] = errors.Join(errs...)
			}
		}
	})
	for j, got := range r.get(idsOf(plainRecords(count))...) {
		winners := 0
		for i := range saved {
			switch err := saved[i][j]; {
			case err == nil:
				winners++
				if got.Subject != fmt.Sprint("by ", i) {
					r.Errorf("record %s was saved by %d, but is %s", got.ID, i, got.Subject)
				}
			case !errors.Is(err, delivery.ErrExists):
				r.Errorf("Save: %v, want nil or ErrExists", err)
			}
		}
		if winners != 1 {
			r.Errorf("record %s was saved by %d of those who tried, want 1", got.ID, winners)
		}
	}
	r.counts(delivery.RecordStats{Total: count, Counts: countsOf(plainRecords(count)), OldestPending: after(0)})
}

func claimsAtOnce(r *storeRig) {
	const crowd, count = 8, 500
	records := plainRecords(count)
	for i := range records {
		records[i].DueAt = after(i)
	}
	r.save(records...)
	var mu sync.Mutex
	claims := map[string][]string{}
	r.atOnce(crowd, func(i int, store delivery.Store) {
		token := fmt.Sprint("worker ", i)
		for {
			claimed, err := store.Claim(r.Context(), claimOf(delivery.StatusPending, token, after(count), 1+i*3))
			if err != nil {
				r.Errorf("Claim: %v", err)
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
	for _, got := range r.get(idsOf(records)...) {
		if by := claims[got.ID]; len(by) != 1 || got.ClaimedBy != by[0] {
			r.Errorf("record %s is claimed by %q, and was claimed by %q", got.ID, got.ClaimedBy, by)
		}
	}
}

// batchesCrosswise changes the same records in opposite orders.
func batchesCrosswise(r *storeRig) {
	const rounds, count = 20, 40
	for round := range rounds {
		errs := make([][]error, 2)
		r.atOnce(2, func(i int, store delivery.Store) {
			records := plainRecords(count)
			if i == 1 {
				slices.Reverse(records)
			}
			for j := range records {
				records[j].ID = fmt.Sprintf("round-%02d-%s", round, records[j].ID)
			}
			errs[i] = store.Save(r.Context(), records...)
		})
		fresh := 0
		for _, err := range slices.Concat(padded(errs[0], count), padded(errs[1], count)) {
			if err == nil {
				fresh++
			} else if !errors.Is(err, delivery.ErrExists) {
				r.Fatalf("Save of the same records in opposite orders: %v, want nil or ErrExists", err)
			}
		}
		if fresh != count {
			r.Errorf("Save of the same %d records in opposite orders: %d were new", count, fresh)
		}
	}
	ids := make([]string, count)
	for i := range ids {
		ids[i] = "round-00-" + plainRecord(i).ID
	}
	r.atOnce(3, func(i int, store delivery.Store) {
		if i == 2 {
			for range rounds {
				if _, err := store.Claim(r.Context(), claimOf(delivery.StatusRetrying, "w", after(1000), count)); err != nil {
					r.Errorf("Claim of what others change: %v", err)
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
			_, errs := store.Update(r.Context(), updates...)
			for _, err := range errs {
				if err != nil && !errors.Is(err, delivery.ErrLate) {
					r.Errorf("Update of the same records in opposite orders: %v, want nil or ErrLate", err)
					return
				}
			}
		}
	})
	for _, got := range r.get(ids...) {
		if got.RetryCount != rounds || len(got.History) != delivery.MaxHistory || got.History[delivery.MaxHistory-1].Attempt != rounds {
			r.Errorf("record %s has %d failures, the last %+v, want %d", got.ID, got.RetryCount, got.History, rounds)
		}
	}
}

// padded is the errors of n.
func padded(errs []error, n int) []error {
	if errs == nil {
		return make([]error, n)
	}
	return errs
}

// everythingAtOnce lets workers send what is due while others save, look and
// purge.
func everythingAtOnce(r *storeRig) {
	const workers, count = 4, 240
	records := plainRecords(2 * count)
	for i := range records {
		records[i].DueAt = after(0)
	}
	r.save(records[:count]...)
	var done, purged atomic.Int64
	var sent [2 * count]atomic.Int64
	work := func(i int, store delivery.Store) error {
		token := fmt.Sprint("worker ", i)
		for done.Load() < 2*count {
			claimed, err := store.Claim(r.Context(), claimOf(delivery.StatusPending, token, after(1), 7))
			if err != nil {
				return fmt.Errorf("claiming: %w", err)
			}
			for j := range claimed {
				queued := delivery.Update{ID: claimed[j].ID, Status: delivery.StatusQueued, At: after(2), OnlyIfClaimedBy: token}
				delivered := delivery.Update{ID: claimed[j].ID, Status: delivery.StatusDelivered, At: after(3)}
				if _, errs := store.Update(r.Context(), queued, delivered); errs != nil {
					return fmt.Errorf("updating what was claimed: %w", errors.Join(errs...))
				}
				var number int
				if _, err := fmt.Sscanf(claimed[j].ID, "record-%d", &number); err != nil {
					return err
				}
				sent[number].Add(1)
				done.Add(1)
			}
			if len(claimed) == 0 {
				pauseFor(r.Context(), time.Millisecond)
			}
		}
		return nil
	}
	r.atOnce(workers+3, func(i int, store delivery.Store) {
		var err error
		switch i {
		default:
			err = work(i, store)
		case workers:
			for i := count; i < 2*count && err == nil; i++ {
				err = errors.Join(store.Save(r.Context(), records[i])...)
			}
		case workers + 1:
			for done.Load() < 2*count && err == nil && !r.Failed() {
				_, listed := store.List(r.Context(), delivery.RecordQuery{Limit: 50})
				_, stats := store.Stats(r.Context())
				_, due := store.NextDue(r.Context(), delivery.StatusPending)
				_, renewed := store.Renew(r.Context(), "nobody", after(9))
				err = errors.Join(listed, stats, due, renewed)
			}
		case workers + 2:
			for done.Load() < count && err == nil && !r.Failed() {
				var n int
				n, err = store.Purge(r.Context(), after(10), 5)
				purged.Add(int64(n))
			}
		}
		if err != nil {
			done.Add(2 * count) // nobody need go on
			r.Errorf("everything at once: %v", err)
		}
	})
	if r.Failed() {
		return
	}
	for i := range sent {
		if n := sent[i].Load(); n != 1 {
			r.Errorf("record %d was sent %d times, want once", i, n)
		}
	}
	left := r.walk(delivery.RecordQuery{Limit: 100}, nil)
	if want := 2*count - int(purged.Load()); len(left) != want {
		r.Errorf("%d records are left, want %d", len(left), want)
	}
	r.counts(delivery.RecordStats{Total: len(left), Counts: countsOf(left)})
	r.purge(after(10), 3*count, len(left))
}

// cancelledCallers lets some go while others, who may have joined them, stay.
// They go when so many of all have come, round by round more, and a little
// later each time: some are before the store then, some in it, some through.
func cancelledCallers(r *storeRig) {
	const crowd, rounds = 32, 8
	for round := range rounds {
		outcomes := make([]error, crowd)
		ctx, cancel := context.WithCancel(r.Context())
		var came atomic.Int64
		enough := make(chan struct{})
		r.atOnce(crowd+1, func(i int, store delivery.Store) {
			if i == crowd {
				<-enough
				pauseFor(ctx, time.Duration(round)*200*time.Microsecond)
				cancel()
				return
			}
			if came.Add(1) == int64(crowd*(round+1)/rounds) {
				close(enough)
			}
			mine := r.Context()
			if i%2 == 0 {
				mine = ctx
			}
			record := plainRecord(round*crowd + i)
			outcomes[i] = errors.Join(store.Save(mine, record)...)
			if outcomes[i] == nil {
				_, errs := store.Update(mine, delivery.Update{ID: record.ID, Status: delivery.StatusQueued, At: after(1)})
				outcomes[i] = errors.Join(errs...)
			}
		})
		for i, err := range outcomes {
			switch {
			case err == nil:
				if got := r.get(plainRecord(round*crowd + i).ID)[0]; got.Status != delivery.StatusQueued {
					r.Errorf("Update: a record is %s after an update to queued", got.Status)
				}
			case i%2 == 1:
				r.Errorf("a caller who stayed: %v", err)
			case !errors.Is(err, context.Canceled):
				r.Errorf("a caller who left: %v, want context.Canceled", err)
			}
		}
		cancel()
	}
}
