package dlq

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// cancelInterval is how often a run that waits looks whether its job was
// cancelled.
const cancelInterval = time.Second

// replayRun is one run of a job, by one runner. While one batch is being
// finished in the background, the next one is read and sent. There are never
// more than these two.
//
// No claim lasts longer than the lease of the job. So a runner that takes the
// job over when the lease has ended finds its entries free, and it does not get
// in the way of an owner that only was slow.
type replayRun struct {
	requeuer  *requeuer
	batchSize int
	filter    Filter // of the job, and never changed

	// The background uses lease and finisher while finishing is not nil.
	lease      *jobLease
	finisher   *batchFinisher
	finishing  chan error
	leaseUntil time.Time // of the job, as far as this goroutine knows
	ended      error     // errStopped, errCancelled or errLost, once and for all

	generations generations       // to be passed
	after       delivery.Position // where the next batch begins
	pageSize    int               // of the next page, if it is more than the batch
	limit       rateLimit
	failures    int // batches in a row that have to be tried again
	poison      poisonCheck
}

// run returns when the job is done or cancelled, or when stopping ends. stop
// ends it. From then on sending has finishTimeout to end, and storing what
// became of the batch has as long again. Otherwise what was confirmed at the
// last moment would be sent once more.
func (r *replayRun) run(stopping context.Context, stop context.CancelFunc) {
	sending, sent := withGrace(stopping, finishTimeout)
	defer sent()
	finishing, finished := withGrace(stopping, 2*finishTimeout)
	defer finished()

	err := r.sendBatches(stopping, sending, finishing)
	if late := r.awaitFinished(); err == nil {
		err = late
	}
	if err != nil {
		stop() // so that finishing ends
	}
	r.lease.giveBack(finishing, err, r.finisher.claimsUntil)
}

// withGrace returns a context that ends some time after ctx does, or when its
// cancel function is called.
func withGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		retry.Wait(later.Done(), grace)
		cancel()
	})
	return later, cancel
}

// sendBatches returns nil when no entry is left.
func (r *replayRun) sendBatches(stopping, sending, finishing context.Context) error {
	at := r.limit.next
	for {
		if err := r.ready(stopping, at); err != nil {
			return err
		}
		b := r.read(stopping)
		if stopping.Err() != nil {
			return errStopped
		}
		if b.probe && b.read && len(b.ids) == 0 {
			r.poison.foundNothing(b)
			continue
		}
		if len(b.ids) > 0 {
			// Reading may have taken long.
			if err := r.ready(stopping, time.Now()); err != nil {
				return err
			}
			r.send(sending, b)
		}
		before := b.generations
		b.conclude()
		b.next = microseconds(r.limit.next)
		err := r.awaitFinished()
		r.startFinishing(finishing, b)
		if err != nil {
			return err
		}
		at = r.limit.next
		switch {
		case b.retryErr != nil:
			if err := r.awaitFinished(); err != nil {
				return err
			}
			if again := time.Now().Add(r.retryDelay(stopping, b)); again.After(at) {
				at = again
			}
		case b.last && b.generations == before:
			return r.awaitFinished()
		default:
			r.failures = 0
		}
	}
}

// retryDelay returns how long to wait before a part of b is tried again.
func (r *replayRun) retryDelay(ctx context.Context, b *replayBatch) time.Duration {
	if b.requeued > 0 {
		r.failures = 0
	}
	r.lease.logWait(ctx, senderWaits, r.failures, b.retryErr)
	r.failures++
	return backoff.Delay(r.failures - 1)
}

// ready waits until at, and until the lease is long enough for a batch.
// Meanwhile it looks at intervals whether the job was cancelled.
func (r *replayRun) ready(stopping context.Context, at time.Time) error {
	for failures := 0; stopping.Err() == nil; {
		now := time.Now()
		if r.leaseSuffices(now) && !now.Before(at) {
			return nil
		}
		if err := r.awaitFinished(); err != nil {
			return err
		}
		var err error
		switch wait := at.Sub(now); {
		case !r.leaseSuffices(now):
			err = r.lease.save(stopping, func(*Job) {})
		case wait > 0 && retry.Wait(stopping.Done(), min(wait, cancelInterval)) && time.Now().Before(at):
			err = r.lease.checkCancelled(stopping)
		}
		r.leaseUntil = r.lease.job.LeaseUntil
		switch {
		case err == nil:
			failures = 0
		case r.endsRun(err):
			return r.ended
		default:
			r.lease.logWait(stopping, storeWaits, failures, err)
			retry.Wait(stopping.Done(), backoff.Delay(failures))
			failures++
		}
	}
	return errStopped
}

// leaseSuffices reports whether the lease is long enough for a batch.
func (r *replayRun) leaseSuffices(now time.Time) bool {
	return r.leaseUntil.Sub(now) >= r.lease.duration*2/3
}

// endsRun reports whether err ends the run, and remembers it then.
func (r *replayRun) endsRun(err error) bool {
	if errors.Is(err, errStopped) || errors.Is(err, errCancelled) || errors.Is(err, errLost) {
		r.ended = err
		return true
	}
	return false
}

// read reads the next batch. It keeps no entries, because claiming returns them
// as they are by then.
func (r *replayRun) read(ctx context.Context) *replayBatch {
	b := &replayBatch{passed: r.after, generations: r.generations}
	from := r.after
	if position, ok := r.poison.nextProbe(); ok {
		from, b.probe = position, true
	}
	group := r.limit.groupSize(r.batchSize)
	size := max(group, r.pageSize)
	page, err := r.list(ctx, from, size)
	if err != nil {
		b.retryErr = err
		return b
	}
	b.read, b.end, b.last = true, from, page.Next == ""
	for i := range page.Entries {
		entry := &page.Entries[i]
		if b.generations.meet(entry) {
			if len(b.ids) == group {
				b.last = false
				break
			}
			b.ids = append(b.ids, entry.ID)
			b.positions = append(b.positions, positionOf(entry))
		}
		b.end = positionOf(entry)
	}
	// Where other generations are many, the job looks further ahead.
	if r.pageSize = 0; len(b.ids) == 0 {
		r.pageSize = min(2*size, r.batchSize)
	}
	if b.probe {
		b.retryErr = r.poison.unclear.cause
	}
	return b
}

// list reads a page of the job's entries, of whatever generation.
func (r *replayRun) list(ctx context.Context, after delivery.Position, limit int) (Page, error) {
	query := Query{Filter: r.filter, Order: OldestFirst, Limit: limit}
	scan, err := query.Scan()
	if err != nil {
		return Page{}, err
	}
	if after.ID != "" {
		query.Cursor = scan.Cursor(&Entry{ID: after.ID, DeadAt: after.At})
	}
	bounded, cancel := context.WithTimeout(ctx, r.lease.duration)
	defer cancel()
	return r.requeuer.store.List(bounded, query)
}

// send claims and sends the batch.
func (r *replayRun) send(ctx context.Context, b *replayBatch) {
	now := time.Now()
	claim := Claim{Token: r.lease.token, Now: now, Lease: r.leaseUntil.Sub(now)}
	b.claimedUntil = r.leaseUntil
	bounded, cancel := r.lease.bounded(ctx)
	entries, errs := r.requeuer.claim(bounded, claim, b.ids)
	cancel()
	claimed := slices.ContainsFunc(errs, func(err error) bool { return err == nil })
	for i := range entries {
		if errs[i] == nil && (!r.filter.Match(&entries[i]) || madeOf(&entries[i]) != b.generations.sends) {
			errs[i] = errNotPicked
		}
	}
	sending := time.Now() // claiming may have taken long
	r.limit.sent(r.requeuer.send(ctx, claim, entries, errs, nextEnvelope), sending)
	b.errs = errs
	if claimed { // otherwise it is the store that failed
		r.poison.judge(b)
	}
}

// startFinishing finishes a batch in the background.
func (r *replayRun) startFinishing(ctx context.Context, b *replayBatch) {
	r.after, r.generations = b.passed, b.generations
	finishing := make(chan error, 1)
	r.finishing = finishing
	go func() { finishing <- r.finisher.finish(ctx, b) }()
}

// awaitFinished waits until no batch is being finished. An error ends the run.
func (r *replayRun) awaitFinished() error {
	if r.finishing != nil {
		err := <-r.finishing
		r.finishing = nil
		r.leaseUntil = r.lease.job.LeaseUntil
		if r.ended == nil {
			r.ended = err
		}
	}
	return r.ended
}
