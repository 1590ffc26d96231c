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

// jobTable is the table that jobs are kept in.
type jobTable struct {
	*table
	find, locked lookup
	operation    *operation
}

var jobColumns = []column{ //nolint:gochecknoglobals // a constant
	{"id", blob}, {"version", integer}, {"job", blob},
}

func newJobTable(d *dialect, prefix string) *jobTable {
	j := &jobTable{table: newTable(d, prefix+"jobs", jobColumns...)}
	j.find = d.lookup("j.id, j.job", j.name+" AS j", "j.id", "")
	j.locked = d.lookup("j.id, j.version", j.name+" AS j", "j.id", "j")
	j.operation = newOperation("jobs", 70, j.run, nil)
	return j
}

// jobCall saves one job, or deletes some.
type jobCall struct {
	save    row // with the new version
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
	call := &jobCall{version: job.Version}
	job.Version++
	encoded, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("%w: Job %s can't be written: %w", dlq.ErrInvalid, job.ID, err)
	}
	call.save = row{shorten(job.ID), job.Version, encoded}
	if err := d.store.writer.execute(ctx, d.store.jobs.operation, size{rows: 1, bytes: len(encoded)}, call); err != nil {
		return err
	}
	return call.refusal
}

// DeleteJobs implements dlq.JobStore.
func (d *DeadLetters) DeleteJobs(ctx context.Context, ids ...string) error {
	if err := d.usable(ctx); err != nil || len(ids) == 0 {
		return err
	}
	return d.store.writer.execute(ctx, d.store.jobs.operation, size{rows: len(ids)}, &jobCall{deleted: shortenAll(ids)})
}

// run executes calls one after another: there are few jobs, and they are saved
// rarely. It locks their rows before that, in the order of their keys.
func (j *jobTable) run(ctx context.Context, q querier, calls []*jobCall) error {
	var names []string
	for _, call := range calls {
		names = append(names, call.deleted...)
		if call.save != nil {
			names = append(names, string(call.save.key()))
		}
	}
	slices.Sort(names)
	versions := make(map[string]int64, len(names)) // from 1; 0 when there is none
	err := j.dialect.queryByKeys(ctx, q, j.locked, keysOf(slices.Compact(names)), func(answer scanner) error {
		var key intoBytes
		var version int64
		err := answer.Scan(&key, &version)
		versions[string(key)] = version
		return err
	})
	for _, call := range calls {
		if err != nil {
			return err
		}
		if call.save != nil {
			call.refusal, err = j.save(ctx, q, call, versions)
			continue
		}
		err = j.dialect.deleteByKeys(ctx, q, j.name, "id", keysOf(call.deleted))
		for _, key := range call.deleted {
			delete(versions, key)
		}
	}
	return err
}

func (j *jobTable) save(ctx context.Context, q querier, call *jobCall, versions map[string]int64) (refusal, err error) {
	key := string(call.save.key())
	switch current := versions[key]; {
	case current == 0 && call.version > 0:
		return dlq.ErrJobNotFound, nil
	case current != call.version:
		return dlq.ErrJobChanged, nil
	case current == 0:
		added, err := j.add(ctx, q, []row{call.save})
		if err != nil {
			return nil, err
		}
		if !added[0] { // another process was faster
			return dlq.ErrJobChanged, nil
		}
	default:
		if err := j.change(ctx, q, []row{call.save}); err != nil {
			return nil, err
		}
	}
	versions[key] = call.version + 1
	return nil, nil
}

// Job implements dlq.JobStore.
func (d *DeadLetters) Job(ctx context.Context, id string) (dlq.Job, error) {
	if err := d.usable(ctx); err != nil {
		return dlq.Job{}, err
	}
	job, err := dlq.Job{}, dlq.ErrJobNotFound
	failure := d.store.reader.read(ctx, "read job", func(q querier) error {
		job, err = dlq.Job{}, dlq.ErrJobNotFound
		return d.store.dialect.queryByKeys(ctx, q, d.store.jobs.find, [][]byte{shorten(id)}, func(answer scanner) error {
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
	err := d.store.reader.read(ctx, "list jobs", func(q querier) error {
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

// scanJob reads a row of find. It reports a row as damaged when it holds no
// job, or another one.
func scanJob(answer scanner) (job dlq.Job, damaged, err error) {
	var key, encoded intoBytes
	if err := answer.Scan(&key, &encoded); err != nil {
		return dlq.Job{}, nil, err
	}
	if json.Unmarshal(encoded, &job) != nil || string(shorten(job.ID)) != string(key) {
		return dlq.Job{}, fmt.Errorf("%w: job %.100q", ErrDamaged, []byte(key)), nil
	}
	return job, nil, nil
}
