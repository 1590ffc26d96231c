package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// Why a run ends before its job is done.
var (
	// errStopped: the runner shall end, or the job was cancelled here.
	errStopped = errors.New("dlq: replay stopped")
	// errCancelled: the job was cancelled elsewhere.
	errCancelled = errors.New("dlq: replay cancelled")
	// errLost: another runner has the job, or it was deleted.
	errLost = errors.New("dlq: replay is someone else's")
)

// lookAgain is how often a run that waits looks whether its job was cancelled.
const lookAgain = time.Second

// run works one job. While one batch is being settled in the background, which
// is removing what was sent and storing the progress, the next one is read and
// sent; never more than these two.
//
// The token of the run owns the job and claims its entries, and no claim lasts
// longer than the job's lease does: whoever takes the job over, when that has
// ended, finds its entries free, and can't be in the way of an owner that only
// was slow.
type run struct {
	manager *Manager
	store   JobStore
	id      string // of job
	token   string

	// job is the record as it was last stored or read. It is the background's
	// while settling is not nil.
	job      Job
	settling chan error
	filter   Filter // of job, and never changed
	ended    error  // errStopped, errCancelled or errLost, for good

	leaseUntil time.Time         // of job, as far as known for sure
	after      delivery.Position // where the next batch begins
	pace       pace
	failures   int            // outages in a row
	tries      map[string]int // of entries that may be at fault: how often each failed while others were sent
	doubt      doubt
	dangling   time.Time // when claims end that could not be given back
	counted    time.Time // when the gauge was last refreshed
}

// work goes on until the job is done, or stopping ends, as stop makes it. What is being sent has
// settleTimeout then, and noting what became of it has as long again: what was
// confirmed at the last moment would be sent once more otherwise.
func (r *run) work(stopping context.Context, stop context.CancelFunc) {
	sending, sent := grace(stopping, settleTimeout)
	defer sent()
	finishing, finished := grace(stopping, 2*settleTimeout)
	defer finished()

	r.leaseUntil = r.job.LeaseUntil
	err := r.batches(stopping, sending, finishing)
	if late := r.settled(); err == nil {
		err = late
	}
	if err != nil {
		stop() // what is left to do has an end
	}
	r.leave(finishing, err)
}

// grace returns a context that ends some time after ctx, or when its cancel
// function is called.
func grace(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		retry.Wait(later.Done(), wait)
		cancel()
	})
	return later, cancel
}

// batches returns nil when nothing is left.
func (r *run) batches(stopping, sending, finishing context.Context) error {
	at := r.pace.next
	for {
		if err := r.ready(stopping, at); err != nil {
			return err
		}
		b := r.read(stopping)
		if stopping.Err() != nil {
			return errStopped
		}
		if b.probe && b.last && len(b.ids) == 0 {
			r.learn(b, false)
			continue
		}
		if len(b.ids) > 0 {
			// Reading may have taken long.
			if err := r.ready(stopping, time.Now()); err != nil {
				return err
			}
			r.send(sending, b)
		}
		b.conclude()
		b.next = microseconds(r.pace.next)
		err := r.settled()
		r.settle(finishing, b)
		if err != nil {
			return err
		}
		at = r.pace.next
		switch {
		case b.outage != nil:
			if err := r.settled(); err != nil {
				return err
			}
			if b.requeued > 0 {
				r.failures = 0
			}
			if again := time.Now().Add(r.failed(stopping, b.outage)); again.After(at) {
				at = again
			}
		case b.last:
			return r.settled()
		default:
			r.failures = 0
		}
	}
}

// failed notes an outage, and returns how long to wait.
func (r *run) failed(ctx context.Context, err error) time.Duration {
	r.waits(ctx, "replay waits", r.failures, err)
	r.failures++
	return backoff.Delay(r.failures - 1)
}

// waits tells why the job waits, loudly the first time in a row.
func (r *run) waits(ctx context.Context, event string, failures int, err error) {
	level := slog.LevelDebug
	if failures == 0 {
		level = slog.LevelWarn
	}
	r.manager.config.Logger.LogAttrs(ctx, level, event, slog.String("job", r.id), slog.Any("error", err))
}

const storeWaits = "replay waits for its store"

// ready waits for a time, and until the lease is long enough for a batch. It
// looks now and then whether the job was cancelled.
func (r *run) ready(stopping context.Context, at time.Time) error {
	for failures := 0; stopping.Err() == nil; {
		now := time.Now()
		if r.fresh(now) && !now.Before(at) {
			return nil
		}
		if err := r.settled(); err != nil {
			return err
		}
		var err error
		switch wait := at.Sub(now); {
		case !r.fresh(now):
			err = r.save(stopping, func(*Job) {})
		case wait > 0 && retry.Wait(stopping.Done(), min(wait, lookAgain)) && time.Now().Before(at):
			err = r.look(stopping)
		}
		r.leaseUntil = r.job.LeaseUntil
		switch {
		case err == nil:
			failures = 0
		case r.over(err):
			return r.ended
		default:
			r.waits(stopping, storeWaits, failures, err)
			retry.Wait(stopping.Done(), backoff.Delay(failures))
			failures++
		}
	}
	return errStopped
}

// fresh says that the lease is good for a batch.
func (r *run) fresh(now time.Time) bool {
	return r.leaseUntil.Sub(now) >= r.manager.config.Lease*2/3
}

// over says whether err ends the run, and remembers it.
func (r *run) over(err error) bool {
	if errors.Is(err, errStopped) || errors.Is(err, errCancelled) || errors.Is(err, errLost) {
		r.ended = err
		return true
	}
	return false
}

// settle settles a batch in the background.
func (r *run) settle(finishing context.Context, b *batch) {
	r.after = b.until
	settling := make(chan error, 1)
	r.settling = settling
	go func() { settling <- r.close(finishing, b) }()
}

// settled waits until nothing is being settled. Its error ends the run.
func (r *run) settled() error {
	if r.settling != nil {
		err := <-r.settling
		r.settling = nil
		r.leaseUntil = r.job.LeaseUntil
		if r.ended == nil {
			r.ended = err
		}
	}
	return r.ended
}

// close makes sure that what was sent is gone, and stores the progress. It
// tries until ctx ends: an entry that was sent must not be sent again because
// the store was away for a while.
func (r *run) close(ctx context.Context, b *batch) error {
	left := r.remove(ctx, b)
	left = r.release(ctx, b) || left
	if left && b.claimedUntil.After(r.dangling) {
		r.dangling = b.claimedUntil
	}
	progress := r.job
	progress.Requeued += b.requeued
	progress.Skipped += b.skipped
	progress.Failed += b.failed
	if b.fault != nil {
		progress.fail(b.fault)
	}
	// Set, not added: the store may have done it before its answer got lost.
	err := r.persist(ctx, func(job *Job) {
		job.Requeued, job.Skipped, job.Failed = progress.Requeued, progress.Skipped, progress.Failed
		job.LastError, job.After, job.NextAt = progress.LastError, b.until, b.next
	})
	r.manager.config.Logger.LogAttrs(ctx, slog.LevelDebug, "replay batch settled", slog.String("job", r.id),
		slog.Int("requeued", b.requeued), slog.Int("skipped", b.skipped), slog.Int("failed", b.failed))
	if now := time.Now(); now.Sub(r.counted) >= time.Second {
		r.counted = now
		r.recount(ctx)
	}
	return err
}

// recount refreshes the gauge, which must not hold up the job.
func (r *run) recount(ctx context.Context) {
	bounded, cancel := r.bounded(ctx)
	defer cancel()
	r.manager.kept.refresh(bounded)
}

// remove returns true when it had to give up.
func (r *run) remove(ctx context.Context, b *batch) bool {
	ids := b.sent
	for failures := 0; len(ids) > 0; failures++ {
		if failures > 0 && !retry.Wait(ctx.Done(), backoff.Delay(failures-1)) {
			r.manager.config.Logger.LogAttrs(ctx, slog.LevelWarn, "replayed entries not removed",
				slog.String("job", r.id), slog.Any("ids", ids), slog.Any("error", b.fault))
			return true
		}
		bounded, cancel := r.bounded(ctx)
		errs := aligned(r.manager.store.Remove(bounded, r.token, ids...), len(ids))
		cancel()
		var again []string
		for k, err := range errs {
			switch {
			case err == nil || errors.Is(err, ErrNotFound):
				continue
			case errors.Is(err, ErrReplaced):
				b.claimed = append(b.claimed, ids[k])
			case !errors.Is(err, ErrClaimLost):
				again = append(again, ids[k])
			}
			b.fault = fmt.Errorf("%w: %w", ErrNotRemoved, err)
		}
		if ids = again; len(ids) > 0 {
			r.waits(ctx, storeWaits, failures, b.fault)
		}
	}
	return false
}

// release gives back what is claimed and was not sent. It returns true when it
// could not.
func (r *run) release(ctx context.Context, b *batch) bool {
	if len(b.claimed) == 0 {
		return false
	}
	bounded, cancel := r.bounded(ctx)
	defer cancel()
	for _, err := range aligned(r.manager.store.Release(bounded, r.token, b.claimed...), len(b.claimed)) {
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClaimLost) {
			return true
		}
	}
	return false
}

// bounded is ctx for one call of the store, whatever the store does.
func (r *run) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.manager.config.Lease/4)
}

// persist saves as soon as the store lets it, or is errStopped at ctx's end.
func (r *run) persist(ctx context.Context, change func(*Job)) error {
	for failures := 0; ; failures++ {
		err := r.save(ctx, change)
		if err == nil || errors.Is(err, errCancelled) || errors.Is(err, errLost) {
			return err
		}
		r.waits(ctx, storeWaits, failures, err)
		if !retry.Wait(ctx.Done(), backoff.Delay(failures)) {
			return errStopped
		}
	}
}

// save stores the job with a change, which has to be the same when it is done
// twice, and with a new lease. It is errCancelled when that was stored but the
// job is no more to be worked, errLost when nothing was stored because the job
// is not ours.
func (r *run) save(ctx context.Context, change func(*Job)) error {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	for {
		next := r.job
		next.UpdatedAt = microseconds(time.Now())
		next.LeaseUntil = microseconds(next.UpdatedAt.Add(r.manager.config.Lease))
		change(&next)
		err := r.store.SaveJob(ctx, next)
		next.Version++
		switch {
		case err == nil:
			r.job = next
		case errors.Is(err, ErrJobNotFound):
			return errLost
		case !errors.Is(err, ErrJobChanged):
			return err
		default:
			if err := r.reload(ctx); err != nil {
				return err
			}
			// Who else changes a job of ours cancels it. Otherwise it was this
			// very change, or one of ours before it, whose answer got lost on
			// the way.
			if !r.job.tells(&next) {
				continue
			}
		}
		if r.job.Status == JobCancelled {
			return errCancelled
		}
		return nil
	}
}

// look reads the job anew, and ends the run if it is no longer to be worked.
func (r *run) look(ctx context.Context) error {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	if err := r.reload(ctx); err != nil {
		return err
	}
	if r.job.Finished() {
		return errCancelled
	}
	return nil
}

// tells says whether j has what a run stores in other, but for the times.
func (j *Job) tells(other *Job) bool {
	return j.Status == other.Status && j.Owner == other.Owner && j.After.Compare(other.After) == 0 && j.LastError == other.LastError &&
		j.Requeued == other.Requeued && j.Skipped == other.Skipped && j.Failed == other.Failed
}

func (r *run) reload(ctx context.Context) error {
	job, err := r.store.Job(ctx, r.id)
	switch {
	case errors.Is(err, ErrJobNotFound):
		return errLost
	case err != nil:
		return err
	case job.Owner != r.token:
		return errLost
	}
	r.job = job
	return nil
}

// leave stores how the run ended. The job is ours for as long as claims are: they
// would be in the way of whoever goes on.
func (r *run) leave(ctx context.Context, err error) {
	defer r.recount(ctx)
	if errors.Is(err, errLost) {
		return
	}
	now := microseconds(time.Now())
	stored := r.persist(ctx, func(job *Job) {
		if err == nil && job.Status == JobRunning {
			job.Status, job.FinishedAt = JobDone, now
		}
		if job.LeaseUntil = r.dangling; !now.Before(r.dangling) {
			job.Owner, job.LeaseUntil = "", time.Time{}
		}
	})
	r.manager.config.Logger.LogAttrs(ctx, slog.LevelInfo, "replay left",
		slog.String("job", r.id), slog.String("status", string(r.job.Status)), slog.Int("requeued", r.job.Requeued),
		slog.Int("skipped", r.job.Skipped), slog.Int("failed", r.job.Failed), slog.Bool("stored", !errors.Is(stored, errStopped)))
}
