package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// The least time between the beginnings of two rounds, unless the first one had a
// full batch: roundSpacing while there is something to do, idleRoundSpacing while
// rounds that follow one another closely find nothing, because other workers were
// faster or clocks differ.
const (
	roundSpacing     = 20 * time.Millisecond
	idleRoundSpacing = time.Second
)

// workerRun is one Run or RunOnce of a RetryWorker: rounds, and sleep in between.
type workerRun struct {
	worker  *RetryWorker
	config  *RetryWorkerConfig // the worker's
	tasks   []task
	wakeup  *wakeup
	session *session // nil unless the transport is Volatile
	stale   staleLetters
	health  struct{ store, transport, deadLetters *dependency }

	ackTimeouts metrics.Counter

	rounds   int       // how many there were
	began    time.Time // the last round
	found    int       // how many records it claimed
	recorded int       // how many of them got further
	idle     int       // rounds in close succession that found nothing
}

// task is what is done about the due records of one status, unless what it needs
// is down.
type task struct {
	status Status
	needs  *dependency
	do     func(ctx context.Context, batch *claimedBatch)
}

// claimedBatch is a batch of records that are this run's until the lease ends.
type claimedBatch struct {
	records []Record
	token   string // of this batch alone
	at      time.Time
	until   time.Time
}

func (w *RetryWorker) newRun() (*workerRun, error) {
	if w == nil || w.store == nil {
		return nil, fmt.Errorf("%w: RetryWorker was not made by NewRetryWorker", ErrConfig)
	}
	r := &workerRun{
		worker:      w,
		config:      &w.config,
		wakeup:      newWakeup(),
		stale:       staleLetters{letters: w.config.DeadLetters, logger: w.config.Logger},
		ackTimeouts: w.config.Metrics.Counter(metrics.AckTimeoutsTotal),
	}
	r.health.store = newDependency("store", w.config.Metrics, w.config.Logger)
	r.health.transport = newDependency("transport", w.config.Metrics, w.config.Logger)
	r.health.deadLetters = newDependency("dead_letters", w.config.Metrics, w.config.Logger)
	if w.session != "" {
		r.session = &session{store: w.store, queue: w.config.Queue, token: w.session, lease: w.config.Lease, health: r.health.store}
	}
	r.tasks = []task{
		{StatusRetrying, r.health.transport, r.sendDue},
		{StatusPending, r.health.transport, r.sendDue},
		// Only a Volatile transport leaves these behind, which need not be the one
		// that is used today.
		{StatusQueued, r.health.transport, r.sendDue},
	}
	if !w.config.IgnoreAckTimeouts {
		r.tasks = append(r.tasks, task{StatusSent, r.health.deadLetters, r.failOverdue})
	}
	return r, nil
}

// round does each task for one batch, so that no task has to wait for another's
// backlog. It says whether some batch was full, and more may be due. When ctx
// ends it claims no more; what it has claimed it finishes within work.
func (r *workerRun) round(ctx, work context.Context) (full bool) {
	last := r.began
	r.began, r.found, r.recorded = time.Now(), 0, 0
	r.rounds++
	r.wakeup.reset() // what changes from here on moves it again
	for _, task := range r.tasks {
		switch now := time.Now(); {
		case ctx.Err() != nil, r.health.store.over().After(now):
			return false
		case task.needs.over().After(now), task.status == StatusQueued && !r.session.fresh(ctx):
			continue
		}
		// Claim within work: a store may carry out a claim whose caller has left, and
		// those records would be nobody's until the lease ends.
		batch := r.claim(work, task.status)
		if batch == nil {
			continue
		}
		r.found += len(batch.records)
		full = full || len(batch.records) == r.config.BatchSize
		task.do(work, batch)
	}
	r.stale.takeBack(work)
	if r.found > 0 || r.began.Sub(last) >= idleRoundSpacing {
		r.idle = 0
	} else {
		r.idle++
	}
	return full
}

// claim returns nil when nothing is due, or the store did not answer.
func (r *workerRun) claim(ctx context.Context, status Status) *claimedBatch {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	now := time.Now()
	claim := Claim{
		Queue: r.config.Queue, Status: status, Token: NewID(), Now: now, Lease: r.config.Lease,
		Limit: r.config.BatchSize, DueFirst: r.dueFirst(),
	}
	records, err := r.worker.store.Claim(limited, claim)
	if err != nil {
		if ctx.Err() == nil {
			r.health.store.failed(ctx, err)
		}
		return nil
	}
	r.health.store.answered(ctx)
	if len(records) == 0 {
		return nil
	}
	return &claimedBatch{records: records, token: claim.Token, at: now, until: now.Add(claim.Lease)}
}

// dueFirstShare is which share of what is claimed goes by its due time alone.
const dueFirstShare = 8

// dueFirst is the share's part of this round's batch. Over several rounds the parts
// add up to the share, however small a batch is.
func (r *workerRun) dueFirst() int {
	before := (r.rounds - 1) % dueFirstShare // rounds since the parts added up
	return (before+1)*r.config.BatchSize/dueFirstShare - before*r.config.BatchSize/dueFirstShare
}

// sleep sleeps until something is due, as far as that is known. It returns false
// when ctx ends.
func (r *workerRun) sleep(ctx context.Context) bool {
	now := time.Now()
	latest := now.Add(r.config.ScanInterval)
	noLaterThan := func(at time.Time) {
		if !at.IsZero() && at.Before(latest) {
			latest = at
		}
	}
	noLaterThan(r.stale.again)
	var statuses []Status
	for _, task := range r.tasks {
		if over := task.needs.over(); over.After(now) {
			noLaterThan(over)
		} else {
			statuses = append(statuses, task.status)
		}
	}
	if len(statuses) > 0 && !r.health.store.over().After(now) {
		due, err := r.nextDue(ctx, statuses)
		switch {
		case err == nil:
			noLaterThan(due)
		case ctx.Err() == nil:
			r.health.store.failed(ctx, err)
		}
	}
	if over := r.health.store.over(); over.After(now) {
		return r.wakeup.sleep(ctx, over, over)
	}
	spacing := idleRoundSpacing
	if r.idle < 6 {
		spacing = min(spacing, roundSpacing<<r.idle)
	}
	return r.wakeup.sleep(ctx, r.began.Add(spacing), latest)
}

func (r *workerRun) nextDue(ctx context.Context, statuses []Status) (time.Time, error) {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	return r.worker.store.NextDue(limited, r.config.Queue, statuses...)
}

// record has the store carry out updates. While it is down it tries again, as
// long as the lease lasts: after that another worker may have the records. It
// returns what came of each update, in order.
func (r *workerRun) record(ctx context.Context, batch *claimedBatch, updates []Update) ([]Progress, []error) {
	progress, errs := r.update(ctx, updates)
	for {
		var again []int
		for i, err := range errs {
			if unanswered(err) {
				again = append(again, i)
			}
		}
		if len(again) == 0 {
			r.health.store.answered(ctx)
			r.recorded += len(updates)
			return progress, errs
		}
		if ctx.Err() != nil {
			return progress, errs
		}
		r.health.store.failed(ctx, errs[again[0]])
		over := r.health.store.over()
		if over.After(batch.until) || !retry.Wait(ctx.Done(), time.Until(over)) {
			return progress, errs
		}
		rest := make([]Update, len(again))
		for k, i := range again {
			rest[k] = updates[i]
		}
		newer, failures := r.update(ctx, rest)
		for k, i := range again {
			progress[i], errs[i] = newer[k], failures[k]
		}
	}
}

func (r *workerRun) update(ctx context.Context, updates []Update) ([]Progress, []error) {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	return updateEach(limited, r.worker.store, updates...)
}

// outages returns the last failure of everything that is down.
func (r *workerRun) outages() error {
	return errors.Join(r.health.store.err(), r.health.transport.err(), r.health.deadLetters.err())
}
