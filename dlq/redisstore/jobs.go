package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
)

var _ dlq.JobStore = (*Store)(nil)

// SaveJob implements dlq.JobStore. Comparing and replacing is one script. When
// Redis is out of memory, it is dlq.ErrFull for a new job. The progress of
// others is stored even then, because a replay makes room.
func (s *Store) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if err := dlq.CheckJob(&job); err != nil {
		return err
	}
	if err := s.ensureChecked(ctx); err != nil {
		return err
	}
	before := job.Version
	job.Version++
	encoded, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("%w: Job %s has a time or a number that can't be written: %w", dlq.ErrInvalid, job.ID, err)
	}
	answer, err := exchange(ctx, s, "save job", func(ctx context.Context) (int, error) {
		return s.scripts.saveJob.Run(ctx, s.client, s.keys.jobs(), job.ID, before, job.Version, encoded).Int()
	})
	switch {
	case outOfMemory(err):
		return fmt.Errorf("%w: %w", dlq.ErrFull, err)
	case err != nil:
		return err
	case answer == answerDone:
		return nil
	case answer == answerMissing:
		return dlq.ErrJobNotFound
	case answer == answerLost:
		return dlq.ErrJobChanged
	}
	return unexpected("save job")
}

// Job implements dlq.JobStore.
func (s *Store) Job(ctx context.Context, id string) (dlq.Job, error) {
	if err := s.usable(ctx); err != nil {
		return dlq.Job{}, err
	}
	encoded, err := exchange(ctx, s, "job", func(ctx context.Context) (string, error) {
		encoded, err := s.client.HGet(ctx, s.keys.jobs()[0], id).Result()
		if errors.Is(err, redis.Nil) {
			return "", nil
		}
		return encoded, err
	})
	if err != nil {
		return dlq.Job{}, err
	}
	if encoded == "" {
		return dlq.Job{}, dlq.ErrJobNotFound
	}
	return parseJob(id, encoded)
}

// Jobs implements dlq.JobStore.
func (s *Store) Jobs(ctx context.Context) ([]dlq.Job, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	all, err := exchange(ctx, s, "jobs", func(ctx context.Context) (map[string]string, error) {
		return s.client.HGetAll(ctx, s.keys.jobs()[0]).Result()
	})
	if err != nil {
		return nil, err
	}
	jobs := make([]dlq.Job, 0, len(all))
	for id, encoded := range all {
		job, err := parseJob(id, encoded)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job)
	}
	slices.SortFunc(jobs, dlq.CompareJobs)
	return jobs, nil
}

// parseJob returns ErrDamaged for what is no job, or another one.
func parseJob(id, encoded string) (dlq.Job, error) {
	var job dlq.Job
	if json.Unmarshal([]byte(encoded), &job) != nil || job.ID != id {
		return dlq.Job{}, fmt.Errorf("%w: job %s", ErrDamaged, id)
	}
	return job, nil
}

// DeleteJobs implements dlq.JobStore.
func (s *Store) DeleteJobs(ctx context.Context, ids ...string) error {
	if err := s.usable(ctx); err != nil || len(ids) == 0 {
		return err
	}
	arguments := make([]any, len(ids))
	for i, id := range ids {
		arguments[i] = id
	}
	_, err := exchange(ctx, s, "delete jobs", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.scripts.deleteJobs.Run(ctx, s.client, s.keys.jobs(), arguments...).Err()
	})
	return err
}
