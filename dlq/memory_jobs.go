package dlq

import (
	"context"
	"maps"
	"slices"
)

var _ JobStore = (*Memory)(nil)

// SaveJob implements JobStore.
func (m *Memory) SaveJob(ctx context.Context, job Job) error {
	if err := m.usable(ctx); err != nil {
		return err
	}
	if err := CheckJob(&job); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	current, found := m.jobs[job.ID]
	switch {
	case !found && job.Version > 0:
		return ErrJobNotFound
	case current.Version != job.Version:
		return ErrJobChanged
	}
	if m.jobs == nil {
		m.jobs = make(map[string]Job)
	}
	job.Version++
	m.jobs[job.ID] = job
	return nil
}

// Job implements JobStore.
func (m *Memory) Job(ctx context.Context, id string) (Job, error) {
	if err := m.usable(ctx); err != nil {
		return Job{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	job, found := m.jobs[id]
	if !found {
		return Job{}, ErrJobNotFound
	}
	return job, nil
}

// Jobs implements JobStore.
func (m *Memory) Jobs(ctx context.Context) ([]Job, error) {
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	m.mu.RLock()
	jobs := slices.Collect(maps.Values(m.jobs))
	m.mu.RUnlock()
	slices.SortFunc(jobs, CompareJobs)
	return jobs, nil
}

// DeleteJobs implements JobStore.
func (m *Memory) DeleteJobs(ctx context.Context, ids ...string) error {
	if err := m.usable(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.jobs, id)
	}
	return nil
}
