package dlq

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/esh3artech/barid/retry"
)

// lookInterval is how often a runner looks for jobs that were started in other
// processes, or left behind.
const lookInterval = 5 * time.Second

// backoff is how long a job, or the search for jobs, waits for a store or a
// transport that failed. It has no limit of tries.
var backoff = retry.Exponential{Base: 100 * time.Millisecond, Max: 30 * time.Second, Jitter: retry.JitterEqual}

// RunJobs works the jobs that StartReplay stored, all at once, until ctx ends.
// Run it beside the consumer, in as many processes as you like: each job is
// worked by one of them, under a lease of Config.Lease, and by another when that
// one stops or dies.
//
// A job goes through its entries from the oldest on, in batches of
// Config.BatchSize at most, and requeues them as Requeue does. Its progress is
// stored with every batch, so that it goes on where it was after a restart.
//
//   - An entry that can't be sent, or that someone else is requeuing, is
//     counted and passed by.
//   - While the transport or the store is down, the job waits, trying again
//     after 0.1 s to 30 s, and fails no entry. What goes wrong with single
//     entries only, while others are sent, is tried 5 times before the entry
//     counts as failed. Where none is sent beside them, some behind are tried in
//     between, to tell which of the two it is.
//   - No entry is sent twice, unless a process dies, or can't be stopped in
//     time, between the confirm and the removal; it is the same generation then,
//     as with Requeue. The job's counts lack that batch.
//
// When ctx ends, batches that are being sent have 5 s to be finished, and the
// store has 5 s more to note what became of them; jobs are left for others to go
// on with. The result is nil then. Otherwise it is
// ErrNoSender, ErrNoJobs or what Err says, at once.
func (m *Manager) RunJobs(ctx context.Context) error {
	store, err := m.jobs()
	if err != nil {
		return err
	}
	if m.sender == nil {
		return ErrNoSender
	}
	var working sync.WaitGroup
	defer working.Wait()
	for failures := 0; ; {
		wait := lookInterval
		if err := m.takeJobs(ctx, store, &working); err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			wait = backoff.Delay(failures)
			failures++
			m.config.Logger.LogAttrs(ctx, slog.LevelWarn, "replays not looked for", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.replays.started:
		case <-time.After(wait):
		}
	}
}

// takeJobs begins to work every job that nobody works, the oldest first.
func (m *Manager) takeJobs(ctx context.Context, store JobStore, working *sync.WaitGroup) error {
	jobs, err := store.Jobs(ctx)
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
		// Before the job is ours, or a cancellation could find nobody to stop.
		stopping, stop := context.WithCancel(ctx)
		if !m.replays.enter(job.ID, stop) {
			stop()
			continue
		}
		leave := func() {
			m.replays.leave(job.ID)
			stop()
		}
		r := newRun(m, store, job)
		switch err := r.take(ctx); {
		case err == nil:
			m.config.Logger.LogAttrs(ctx, slog.LevelInfo, "replay picked up", slog.String("job", job.ID))
			working.Go(func() {
				defer leave()
				r.work(stopping, stop)
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

// take makes the job ours. That must be known even if ctx ends meanwhile, or the
// job would have an owner that doesn't work.
func (r *run) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	return r.save(ctx, func(job *Job) { job.Owner = r.token })
}

func newRun(m *Manager, store JobStore, job Job) *run {
	return &run{
		manager: m,
		store:   store,
		id:      job.ID,
		token:   uuid.NewString(),
		job:     job,
		filter:  job.Filter,
		tries:   make(map[string]int),
		after:   job.After,
		pace:    newPace(job.Rate, m.config.BatchSize, job.NextAt, time.Now()),
	}
}
