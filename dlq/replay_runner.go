package dlq

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/esh3artech/barid/retry"
)

// lookInterval is how often a runner looks for jobs that were started in
// another process, or that another runner left.
const lookInterval = 5 * time.Second

// runnerTimeout is how long a job may wait for a runner in silence.
const runnerTimeout = 2 * lookInterval

// backoff is how long a job, or the search for jobs, waits after a failure of
// the store or the transport. There is no limit of tries.
var backoff = retry.Exponential{Base: 100 * time.Millisecond, Max: 30 * time.Second, Jitter: retry.JitterEqual}

// RunJobs runs the jobs that StartReplay stored, all at once, until ctx ends.
// Call it beside the consumer, in any number of processes. Each job is run by
// one of them, under a lease of Config.Lease. Another takes it over when that
// one stops or dies.
//
// A job looks which generation is the highest, and requeues its entries as Requeue
// does: those of the highest generation first, each from the oldest on, in batches
// of Config.BatchSize at most. Its progress is stored with every batch, so that it
// goes on from there after a restart.
//
//   - An entry that can't be sent, or that someone else is requeueing, is
//     counted and left where it is.
//   - While the transport or the store is down, the job waits. It tries again
//     after 0.1 s to 30 s, and no entry counts as failed.
//   - An entry that fails while others are sent is tried 5 times before it
//     counts as failed. Where no other is sent, the job tries some entries
//     behind it, to tell whether the entry can't be sent or the transport is
//     down.
//   - No entry is sent twice, unless a process dies, or can't be stopped in
//     time, between the confirm and the removal. The second time it is the same
//     generation, as with Requeue. The job's counts lack that batch.
//
// When ctx ends, batches that are being sent have 5 s to end, and storing what
// became of them has 5 s more. The jobs are left for other runners, and RunJobs
// returns nil. Otherwise it returns ErrNoSender, ErrNoJobs or what Err returns,
// at once.
func (m *Manager) RunJobs(ctx context.Context) error {
	if _, err := m.jobStore(); err != nil {
		return err
	}
	if m.requeuer.sender == nil {
		return ErrNoSender
	}
	m.replays.run(ctx)
	return nil
}

// replayRunner runs the jobs of a store. It knows which of them run in this
// process.
type replayRunner struct {
	jobs     JobStore // nil when the Manager's Store is none
	requeuer *requeuer
	gauge    *entryGauge
	config   *Config

	// started wakes the runner. It is full when there may be a new job.
	started chan struct{}
	runs    atomic.Int64 // of run that go on

	mu    sync.Mutex
	stops map[string]context.CancelFunc // by the ID of a job that runs here
}

func newReplayRunner(requeuer *requeuer, gauge *entryGauge, config *Config) *replayRunner {
	jobs, _ := requeuer.store.(JobStore)
	return &replayRunner{
		jobs:     jobs,
		requeuer: requeuer,
		gauge:    gauge,
		config:   config,
		started:  make(chan struct{}, 1),
		stops:    make(map[string]context.CancelFunc),
	}
}

// wake makes a runner look for jobs now.
func (r *replayRunner) wake() {
	select {
	case r.started <- struct{}{}:
	default:
	}
}

// stop ends the run of a job, if it runs in this process.
func (r *replayRunner) stop(id string) {
	r.mu.Lock()
	stop := r.stops[id]
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// awaitRunner warns if after runnerTimeout no process has taken the job up, and this
// one runs no jobs. A runner shows in the store only by the jobs that it has.
func (r *replayRunner) awaitRunner(job Job) {
	time.AfterFunc(runnerTimeout, func() {
		if r.runs.Load() > 0 {
			return // it tells what keeps it
		}
		ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
		defer cancel()
		now, err := r.jobs.Job(ctx, job.ID)
		if err == nil && now.Status == JobRunning && now.UpdatedAt.Equal(job.UpdatedAt) {
			r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "replay has no runner",
				slog.String("job", job.ID), slog.String("want", "a process that runs Manager.RunJobs"))
		}
	})
}

// enter returns false when the job runs in this process already.
func (r *replayRunner) enter(id string, stop context.CancelFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stops[id] != nil {
		return false
	}
	r.stops[id] = stop
	return true
}

func (r *replayRunner) leave(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.stops, id)
}

// run takes and runs jobs until ctx ends, and returns when all of them have
// been left.
func (r *replayRunner) run(ctx context.Context) {
	r.runs.Add(1)
	defer r.runs.Add(-1)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { r.recount(ctx) })
	for failures := 0; ; {
		wait := lookInterval
		if err := r.takeJobs(ctx, &running); err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			wait = backoff.Delay(failures)
			failures++
			r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "replays not looked for", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.started:
		case <-time.After(wait):
		}
	}
}

// recount has the entries counted that others have put or deleted.
func (r *replayRunner) recount(ctx context.Context) {
	for retry.Wait(ctx.Done(), recountInterval) {
		r.gauge.refresh()
	}
}

// takeJobs begins to run every job that has no runner, the oldest first.
func (r *replayRunner) takeJobs(ctx context.Context, running *sync.WaitGroup) error {
	jobs, err := r.jobs.Jobs(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, job := range slices.Backward(jobs) {
		if ctx.Err() != nil {
			break
		}
		if !job.free(time.Now()) {
			continue
		}
		// Before the job is taken: a cancellation in between has to find it here.
		stopping, stop := context.WithCancel(ctx)
		if !r.enter(job.ID, stop) {
			stop()
			continue
		}
		leave := func() {
			r.leave(job.ID)
			stop()
		}
		lease := r.newLease(job)
		switch err := lease.take(ctx); {
		case err == nil:
			lease.logger.LogAttrs(ctx, slog.LevelInfo, "replay picked up")
			running.Go(func() {
				defer leave()
				r.newRun(lease).run(stopping, stop)
			})
		case errors.Is(err, errLost) || errors.Is(err, errCancelled):
			leave()
		default:
			leave()
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func (r *replayRunner) newLease(job Job) *jobLease {
	return &jobLease{
		jobs:     r.jobs,
		id:       job.ID,
		token:    uuid.NewString(),
		duration: r.config.Lease,
		logger:   r.config.Logger.With(slog.String("job", job.ID)),
		job:      job,
	}
}

func (r *replayRunner) newRun(lease *jobLease) *replayRun {
	job := &lease.job
	return &replayRun{
		requeuer:    r.requeuer,
		batchSize:   r.config.BatchSize,
		filter:      job.Filter,
		lease:       lease,
		leaseUntil:  job.LeaseUntil,
		finisher:    &batchFinisher{store: r.requeuer.store, lease: lease, gauge: r.gauge},
		after:       job.After,
		generations: generations{sends: job.Sends, next: job.SendsNext},
		limit:       newRateLimit(job.Rate, r.config.BatchSize, job.NextAt, time.Now()),
		poison:      poisonCheck{tries: make(map[string]int)},
	}
}
