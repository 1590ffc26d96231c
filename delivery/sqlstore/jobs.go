package sqlstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/esh3artech/barid/dlq"
)

var _ dlq.JobStore = (*DeadLetters)(nil)

// jobs is how jobs lie in their table.
type jobs struct {
	*table
	find, locked lookup
	steps        *operation
}

var jobColumns = []column{ //nolint:gochecknoglobals // a constant
	{"id", blob}, {"version", integer}, {"job", blob},
}

func newJobs(d *dialect, prefix string) *jobs {
	j := &jobs{table: newTable(d, prefix+"jobs", jobColumns...)}
	j.find = d.lookup("j.id, j.job", j.name+" AS j", "j.id", "")
	j.locked = d.lookup("j.id, j.version", j.name+" AS j", "j.id", "j")
	j.steps = newOperation("jobs", 70, j.run, nil)
	return j
}

// jobStep saves one job, or deletes some.
type jobStep struct {
	save    row // as it will be
	version int64
	deleted []string

	refusal error
}

// SaveJob implements dlq.JobStore.
func (d *DeadLetters) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	if err := dlq.CheckJob(&job); err != nil {
		return err
	}
	step := &jobStep{version: job.Version}
	job.Version++
	encoded, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("%w: Job %s can't be written: %w", dlq.ErrInvalid, job.ID, err)
	}
	step.save = row{short(job.ID), job.Version, encoded}
	if err := d.store.writer.perform(ctx, d.store.jobs.steps, size{rows: 1, bytes: len(encoded)}, step); err != nil {
		return err
	}
	return step.refusal
}

// DeleteJobs implements dlq.JobStore.
func (d *DeadLetters) DeleteJobs(ctx context.Context, ids ...string) error {
	if err := d.usable(ctx); err != nil || len(ids) == 0 {
		return err
	}
	return d.store.writer.perform(ctx, d.store.jobs.steps, size{rows: len(ids)}, &jobStep{deleted: shorts(ids)})
}

// run carries steps out one after the other: there are few jobs, and they are
// saved once in a while. Their rows are locked in the order of their keys before
// that.
func (j *jobs) run(ctx context.Context, q querier, steps []*jobStep) error {
	var names []string
	for _, step := range steps {
		names = append(names, step.deleted...)
		if step.save != nil {
			names = append(names, string(step.save.key()))
		}
	}
	slices.Sort(names)
	versions := make(map[string]int64, len(names)) // from 1; 0 is none
	err := j.dialect.fetch(ctx, q, j.locked, keysOf(slices.Compact(names)), func(answer scanner) error {
		var key intoBytes
		var version int64
		err := answer.Scan(&key, &version)
		versions[string(key)] = version
		return err
	})
	for _, step := range steps {
		if err != nil {
			return err
		}
		if step.save != nil {
			step.refusal, err = j.save(ctx, q, step, versions)
			continue
		}
		err = j.dialect.remove(ctx, q, j.name, "id", keysOf(step.deleted))
		for _, key := range step.deleted {
			delete(versions, key)
		}
	}
	return err
}

func (j *jobs) save(ctx context.Context, q querier, step *jobStep, versions map[string]int64) (refusal, err error) {
	key := string(step.save.key())
	switch current := versions[key]; {
	case current == 0 && step.version > 0:
		return dlq.ErrJobNotFound, nil
	case current != step.version:
		return dlq.ErrJobChanged, nil
	case current == 0:
		added, err := j.add(ctx, q, []row{step.save})
		if err != nil {
			return nil, err
		}
		if !added[0] { // somebody else was quicker
			return dlq.ErrJobChanged, nil
		}
	default:
		if err := j.change(ctx, q, []row{step.save}); err != nil {
			return nil, err
		}
	}
	versions[key] = step.version + 1
	return nil, nil
}

// Job implements dlq.JobStore.
func (d *DeadLetters) Job(ctx context.Context, id string) (dlq.Job, error) {
	if err := d.usable(ctx); err != nil {
		return dlq.Job{}, err
	}
	job, err := dlq.Job{}, dlq.ErrJobNotFound
	failure := d.store.read(ctx, "read job", func(q querier) error {
		job, err = dlq.Job{}, dlq.ErrJobNotFound
		return d.store.dialect.fetch(ctx, q, d.store.jobs.find, [][]byte{short(id)}, func(answer scanner) error {
			var failure error
			job, err, failure = scanJob(answer)
			return failure
		})
	})
	if failure != nil {
		return dlq.Job{}, failure
	}
	return job, err
}

// Jobs implements dlq.JobStore.
func (d *DeadLetters) Jobs(ctx context.Context) ([]dlq.Job, error) {
	if err := d.usable(ctx); err != nil {
		return nil, err
	}
	var all []dlq.Job
	var damaged []error
	err := d.store.read(ctx, "list jobs", func(q querier) error {
		all, damaged = nil, nil
		return query(ctx, q, func(answer scanner) error {
			job, bad, err := scanJob(answer)
			all, damaged = append(all, job), append(damaged, bad)
			return err
		}, "SELECT id, job FROM "+d.store.jobs.name)
	})
	if err == nil {
		err = errors.Join(damaged...)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, dlq.CompareJobs)
	return all, nil
}

// scanJob reads a row of find. What is no job, or not this one, is damaged.
func scanJob(answer scanner) (job dlq.Job, damaged, err error) {
	var key, encoded intoBytes
	if err := answer.Scan(&key, &encoded); err != nil {
		return dlq.Job{}, nil, err
	}
	if json.Unmarshal(encoded, &job) != nil || string(short(job.ID)) != string(key) {
		return dlq.Job{}, fmt.Errorf("%w: job %.100q", ErrDamaged, []byte(key)), nil
	}
	return job, nil, nil
}
