package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/esh3artech/barid/delivery"
)

const (
	// MaxRunningJobs bounds how many jobs are not finished.
	MaxRunningJobs = 16
	// KeptJobs is how many finished jobs are kept. StartReplay deletes older ones.
	KeptJobs = 100
)

// The bounds of ReplayConfig.Rate, in entries per second. MinRate is about one
// entry in a quarter of an hour.
const (
	MinRate = 0.001
	MaxRate = 1e6
)

// ReplayConfig configures a bulk replay.
type ReplayConfig struct {
	// Rate is how many entries are sent per second at most, from MinRate to
	// MaxRate. It is exact over time: ten times a second a group of entries is
	// sent, or single entries when the rate is less than ten. Time that was lost
	// in a pause is not caught up. The rate holds over a change of runners, except
	// for the batch that a runner had sent when it died. Default 0: no limit.
	Rate float64
}

func (c *ReplayConfig) validate() error {
	if c.Rate != 0 && !(c.Rate >= MinRate && c.Rate <= MaxRate) || math.IsNaN(c.Rate) {
		return fmt.Errorf("%w: ReplayConfig.Rate is %v, want 0 or %v to %v", ErrInvalid, c.Rate, MinRate, MaxRate)
	}
	return nil
}

// Preview is what a replay of a Filter would begin with.
type Preview struct {
	// Count is how many entries the filter picks now.
	Count int `json:"count"`
	// Malformed is how many of them are no messages, so that they can't be sent
	// again. There may be others that can't.
	Malformed int `json:"malformed"`
	// Oldest and Newest are the first and the last DeadAt of them. They are zero
	// when there is none.
	Oldest time.Time `json:"oldest,omitzero"`
	Newest time.Time `json:"newest,omitzero"`
}

// jobStore returns the JobStore, or why there is none.
func (m *Manager) jobStore() (JobStore, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	if m.replays.jobs == nil {
		return nil, ErrNoJobs
	}
	return m.replays.jobs, nil
}

// Preview returns what a replay of filter would begin with, and changes
// nothing. A filter that CheckFilter rejects is ErrQuery.
func (m *Manager) Preview(ctx context.Context, filter Filter) (Preview, error) {
	if err := m.Err(); err != nil {
		return Preview{}, err
	}
	count, err := m.store.Count(ctx, filter)
	if err != nil || count == 0 {
		return Preview{}, err
	}
	preview := Preview{Count: count}
	if filter.Reason == "" || filter.Reason == delivery.ReasonMalformed {
		malformed := filter
		malformed.Reason = delivery.ReasonMalformed
		if preview.Malformed, err = m.store.Count(ctx, malformed); err != nil {
			return Preview{}, err
		}
	}
	if preview.Oldest, err = firstDeadAt(ctx, m.store, filter, OldestFirst); err != nil {
		return Preview{}, err
	}
	if preview.Newest, err = firstDeadAt(ctx, m.store, filter, NewestFirst); err != nil {
		return Preview{}, err
	}
	return preview, nil
}

// firstDeadAt returns the DeadAt of the first entry in an order, or zero when
// there is none.
func firstDeadAt(ctx context.Context, store Store, filter Filter, order Order) (time.Time, error) {
	page, err := store.List(ctx, Query{Filter: filter, Order: order, Limit: 1})
	if err != nil || len(page.Entries) == 0 {
		return time.Time{}, err
	}
	return page.Entries[0].DeadAt, nil
}

// StartReplay stores a job that requeues all entries that filter picks and that
// were given up before now. It does not run the job: RunJobs does. A RunJobs in
// this process begins at once, one in another process within some seconds. If no
// process has taken the job up after 10 s and this one runs no RunJobs, that is
// a Warn event. The job waits for a RunJobs, and has no Owner until then.
//
// Two jobs that pick the same entries send each of them once. A filter that
// CheckFilter rejects is ErrQuery, and a Rate that is out of range is
// ErrInvalid. With MaxRunningJobs unfinished jobs it is ErrTooManyJobs. After
// an error of the store the job may have been started all the same.
func (m *Manager) StartReplay(ctx context.Context, filter Filter, config ReplayConfig) (Job, error) {
	store, err := m.jobStore()
	if err != nil {
		return Job{}, err
	}
	if err := config.validate(); err != nil {
		return Job{}, err
	}
	now := microseconds(time.Now())
	if filter.Until.IsZero() || now.Before(filter.Until) {
		filter.Until = now
	}
	total, err := m.store.Count(ctx, filter)
	if err != nil {
		return Job{}, err
	}
	if err := deleteOldJobs(ctx, store); err != nil {
		return Job{}, err
	}
	job := Job{
		ID: uuid.NewString(), Filter: filter, Rate: config.Rate, Status: JobRunning,
		Total: total, CreatedAt: now, UpdatedAt: now,
	}
	// A store that tries again after a lost answer finds the job there.
	if err := store.SaveJob(ctx, job); err != nil && !errors.Is(err, ErrJobChanged) {
		return Job{}, err
	}
	job.Version++
	m.config.Logger.LogAttrs(ctx, slog.LevelInfo, "replay started",
		slog.String("job", job.ID), slog.Int("total", total), slog.Float64("rate", job.Rate))
	m.replays.wake()
	m.replays.awaitRunner(job)
	return job, nil
}

// deleteOldJobs makes room for a new job: it deletes the oldest finished jobs
// beyond KeptJobs. It returns ErrTooManyJobs when there are too many unfinished
// ones.
func deleteOldJobs(ctx context.Context, store JobStore) error {
	jobs, err := store.Jobs(ctx)
	if err != nil {
		return err
	}
	running, finished := 0, 0
	var old []string
	for i := range jobs { // newest first
		if !jobs[i].Finished() {
			running++
		} else if finished++; finished >= KeptJobs {
			old = append(old, jobs[i].ID)
		}
	}
	if running >= MaxRunningJobs {
		return fmt.Errorf("%w: %d of %d", ErrTooManyJobs, running, MaxRunningJobs)
	}
	if len(old) == 0 {
		return nil
	}
	return store.DeleteJobs(ctx, old...)
}

// Job returns a job with its progress after its last batch, or ErrJobNotFound.
func (m *Manager) Job(ctx context.Context, id string) (Job, error) {
	store, err := m.jobStore()
	if err != nil {
		return Job{}, err
	}
	return store.Job(ctx, id)
}

// Jobs returns all jobs, newest first: the unfinished ones, and about KeptJobs
// that are finished.
func (m *Manager) Jobs(ctx context.Context) ([]Job, error) {
	store, err := m.jobStore()
	if err != nil {
		return nil, err
	}
	return store.Jobs(ctx)
}

// CancelReplay ends a job for good. A runner in this process begins no further
// batch, and has 5 s to finish the one that it is sending. A runner in another
// process learns of it within a second when it waits, and otherwise when it
// stores the progress of a batch. By then it may be sending the next one.
//
// What was sent is counted, and what was not sent is kept. It returns nil for a
// job that is cancelled already, ErrJobFinished for one that is done, and
// ErrJobNotFound for one that does not exist.
func (m *Manager) CancelReplay(ctx context.Context, id string) error {
	store, err := m.jobStore()
	if err != nil {
		return err
	}
	for {
		job, err := store.Job(ctx, id)
		if err != nil {
			return err
		}
		switch job.Status {
		case JobCancelled:
			m.replays.stop(id)
			return nil
		case JobRunning:
		default:
			return ErrJobFinished
		}
		now := microseconds(time.Now())
		job.Status, job.UpdatedAt, job.FinishedAt = JobCancelled, now, now
		switch err := store.SaveJob(ctx, job); {
		case err == nil:
			m.replays.stop(id)
			m.config.Logger.LogAttrs(ctx, slog.LevelInfo, "replay cancelled", slog.String("job", id))
			return nil
		case !errors.Is(err, ErrJobChanged):
			return err
		}
		// Its runner stored its progress in between.
	}
}
