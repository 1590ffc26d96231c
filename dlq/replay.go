package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/esh3artech/barid/delivery"
)

const (
	// MaxRunningJobs bounds how many jobs there are that are not finished.
	MaxRunningJobs = 16
	// KeptJobs is how many finished jobs are kept to be looked at. StartReplay
	// deletes older ones.
	KeptJobs = 100
)

// The bounds of ReplayConfig.Rate: from about one in a quarter of an hour.
const (
	MinRate = 0.001
	MaxRate = 1e6
)

// ReplayConfig configures a bulk replay.
type ReplayConfig struct {
	// Rate is how many entries are sent per second at most, from MinRate to
	// MaxRate. The cap is exact over time: entries go in groups of a tenth of a
	// second's worth, or one by one when that is less than one, and time that
	// was lost in a pause is not caught up. It holds over a change of runners, but
	// for the batch that a runner had sent when it died. Default 0: no bound.
	Rate float64
}

func (c *ReplayConfig) validate() error {
	if c.Rate != 0 && !(c.Rate >= MinRate && c.Rate <= MaxRate) || math.IsNaN(c.Rate) {
		return fmt.Errorf("%w: ReplayConfig.Rate is %v, want 0 or %v to %v", ErrInvalid, c.Rate, MinRate, MaxRate)
	}
	return nil
}

// Preview says what a replay of a Filter would begin with.
type Preview struct {
	// Count is how many entries the filter picks now.
	Count int `json:"count"`
	// Malformed is how many of them can't be sent again because they are no
	// messages. There may be others that can't be.
	Malformed int `json:"malformed"`
	// Oldest and Newest are the first and the last DeadAt of them, zero when
	// there is none.
	Oldest time.Time `json:"oldest,omitzero"`
	Newest time.Time `json:"newest,omitzero"`
}

// replays are the jobs that are worked at in this process.
type replays struct {
	store JobStore // nil when the Manager's Store is none
	// started wakes a runner; it holds one when there may be a job to take.
	started chan struct{}

	mu    sync.Mutex
	stops map[string]context.CancelFunc // by job ID
}

func newReplays(store Store) *replays {
	jobs, _ := store.(JobStore)
	return &replays{store: jobs, started: make(chan struct{}, 1), stops: make(map[string]context.CancelFunc)}
}

func (r *replays) wake() {
	select {
	case r.started <- struct{}{}:
	default:
	}
}

// stop makes the runner in this process, if it is one, look at the job now.
func (r *replays) stop(id string) {
	r.mu.Lock()
	stop := r.stops[id]
	r.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// enter returns false when the job is worked at here already.
func (r *replays) enter(id string, stop context.CancelFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stops[id] != nil {
		return false
	}
	r.stops[id] = stop
	return true
}

func (r *replays) leave(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.stops, id)
}

// jobs is the JobStore, or why there is none.
func (m *Manager) jobs() (JobStore, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	if m.replays.store == nil {
		return nil, ErrNoJobs
	}
	return m.replays.store, nil
}

// Preview tells what a replay of filter would begin with, and changes nothing.
// A filter that no entry can fit is ErrQuery.
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
	if preview.Oldest, err = m.first(ctx, filter, OldestFirst); err != nil {
		return Preview{}, err
	}
	if preview.Newest, err = m.first(ctx, filter, NewestFirst); err != nil {
		return Preview{}, err
	}
	return preview, nil
}

// first is the DeadAt of the first entry in an order, zero when there is none.
func (m *Manager) first(ctx context.Context, filter Filter, order Order) (time.Time, error) {
	page, err := m.store.List(ctx, Query{Filter: filter, Order: order, Limit: 1})
	if err != nil || len(page.Entries) == 0 {
		return time.Time{}, err
	}
	return page.Entries[0].DeadAt, nil
}

// StartReplay stores a job that requeues everything that filter picks and that
// was given up before now; see RunJobs for who works it. A runner in this
// process begins at once, one elsewhere within some seconds.
//
// Two jobs that pick the same entries share them: each entry is sent once. A
// filter that no entry can fit is ErrQuery, a Rate that is out of range
// ErrInvalid; with MaxRunningJobs unfinished jobs it is ErrTooManyJobs. An error
// of the store may leave a job behind that was started.
func (m *Manager) StartReplay(ctx context.Context, filter Filter, config ReplayConfig) (Job, error) {
	store, err := m.jobs()
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
	if err := m.makeRoom(ctx, store); err != nil {
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
	return job, nil
}

// makeRoom deletes finished jobs that are too many.
func (m *Manager) makeRoom(ctx context.Context, store JobStore) error {
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

// Job returns a job with its progress, or ErrJobNotFound. Its counts are those
// of its last batch.
func (m *Manager) Job(ctx context.Context, id string) (Job, error) {
	store, err := m.jobs()
	if err != nil {
		return Job{}, err
	}
	return store.Job(ctx, id)
}

// Jobs returns all jobs that are kept, newest first: the unfinished ones, and
// about KeptJobs that are finished.
func (m *Manager) Jobs(ctx context.Context) ([]Job, error) {
	store, err := m.jobs()
	if err != nil {
		return nil, err
	}
	return store.Jobs(ctx)
}

// CancelReplay ends a job for good. A runner in this process begins no further
// batch, and has 5 s to finish the one that it is sending. One elsewhere learns
// of it within a second when it waits, and otherwise when it stores what became
// of a batch; by then it may be sending the next. What was sent is counted. What the job has not sent stays. Cancelling what
// is cancelled is nil, what is done ErrJobFinished, what is not there
// ErrJobNotFound.
func (m *Manager) CancelReplay(ctx context.Context, id string) error {
	store, err := m.jobs()
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
		// Its runner wrote progress in between.
	}
}
