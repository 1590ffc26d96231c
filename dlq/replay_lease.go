package dlq

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/retry"
)

// Why a run ends before its job is done.
var (
	// errStopped: the runner is to end, or the job was cancelled in this process.
	errStopped = errors.New("dlq: replay stopped")
	// errCancelled: the job was cancelled in another process.
	errCancelled = errors.New("dlq: replay cancelled")
	// errLost: another runner has the job, or the job was deleted.
	errLost = errors.New("dlq: replay is someone else's")
)

// jobLease is a job that a runner owns for a while. Through it the runner
// stores its changes, each with a new lease.
type jobLease struct {
	jobs     JobStore
	id       string // of job
	token    string // of the owner; it also claims the job's entries
	duration time.Duration
	logger   *slog.Logger // has the job's ID

	job Job // as it was last stored or read
}

// take makes token the owner. It has to learn the outcome even if ctx ends
// meanwhile, or the job would have an owner that doesn't run it.
func (l *jobLease) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	return l.save(ctx, func(job *Job) { job.Owner = l.token })
}

// save stores the job with a change and with a new lease. The change has to be
// the same when it is made twice. It returns errCancelled when the change was
// stored but the job is cancelled, and errLost when nothing was stored because
// token does not own the job.
func (l *jobLease) save(ctx context.Context, change func(*Job)) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	for {
		next := l.job
		next.UpdatedAt = microseconds(time.Now())
		next.LeaseUntil = microseconds(next.UpdatedAt.Add(l.duration))
		change(&next)
		err := l.jobs.SaveJob(ctx, next)
		next.Version++
		switch {
		case err == nil:
			l.job = next
		case errors.Is(err, ErrJobNotFound):
			return errLost
		case !errors.Is(err, ErrJobChanged):
			return err
		default:
			if err := l.reload(ctx); err != nil {
				return err
			}
			// Only a cancellation changes a job that has an owner. If it was none,
			// an earlier call has made this change, or one before it, and its
			// answer got lost.
			if !l.job.sameProgress(&next) {
				continue
			}
		}
		if l.job.Status == JobCancelled {
			return errCancelled
		}
		return nil
	}
}

// sameProgress reports whether j has all that a run changes as other has it,
// but for the times.
func (j *Job) sameProgress(other *Job) bool {
	return j.Status == other.Status && j.Owner == other.Owner && j.After.Compare(other.After) == 0 &&
		j.Sends == other.Sends && j.SendsNext == other.SendsNext && j.LastError == other.LastError &&
		j.Requeued == other.Requeued && j.Skipped == other.Skipped && j.Failed == other.Failed
}

// persist saves as soon as the store allows it. When ctx ends before that, it
// returns errStopped.
func (l *jobLease) persist(ctx context.Context, change func(*Job)) error {
	for failures := 0; ; failures++ {
		err := l.save(ctx, change)
		if err == nil || errors.Is(err, errCancelled) || errors.Is(err, errLost) {
			return err
		}
		l.logWait(ctx, storeWaits, failures, err)
		if !retry.Wait(ctx.Done(), backoff.Delay(failures)) {
			return errStopped
		}
	}
}

// checkCancelled reads the job anew, and returns errCancelled or errLost when
// the run has to end.
func (l *jobLease) checkCancelled(ctx context.Context) error {
	ctx, cancel := l.bounded(ctx)
	defer cancel()
	if err := l.reload(ctx); err != nil {
		return err
	}
	if l.job.Finished() {
		return errCancelled
	}
	return nil
}

func (l *jobLease) reload(ctx context.Context) error {
	job, err := l.jobs.Job(ctx, l.id)
	switch {
	case errors.Is(err, ErrJobNotFound):
		return errLost
	case err != nil:
		return err
	case job.Owner != l.token:
		return errLost
	}
	l.job = job
	return nil
}

// giveBack stores how the run ended, with nil as an err for a job that is done.
// Token owns the job until claimsUntil, because the next runner would find the
// entries claimed.
func (l *jobLease) giveBack(ctx context.Context, err error, claimsUntil time.Time) {
	if errors.Is(err, errLost) {
		return
	}
	now := microseconds(time.Now())
	stored := l.persist(ctx, func(job *Job) {
		if err == nil && job.Status == JobRunning {
			job.Status, job.FinishedAt = JobDone, now
		}
		if job.LeaseUntil = claimsUntil; !now.Before(claimsUntil) {
			job.Owner, job.LeaseUntil = "", time.Time{}
		}
	})
	l.logger.LogAttrs(ctx, slog.LevelInfo, "replay left",
		slog.String("status", string(l.job.Status)), slog.Int("requeued", l.job.Requeued),
		slog.Int("skipped", l.job.Skipped), slog.Int("failed", l.job.Failed), slog.Bool("stored", !errors.Is(stored, errStopped)))
}

// bounded returns a context for one call of the store, so that a store that
// hangs does not use up the lease.
func (l *jobLease) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.duration/4)
}

// The events of logWait.
const (
	senderWaits = "replay waits"
	storeWaits  = "replay waits for its store"
)

// logWait logs why the job waits: as a warning after the first failure in a
// row, and for debugging after the others.
func (l *jobLease) logWait(ctx context.Context, event string, failures int, err error) {
	level := slog.LevelDebug
	if failures == 0 {
		level = slog.LevelWarn
	}
	l.logger.LogAttrs(ctx, level, event, slog.Any("error", err))
}
