package dlq_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// saving is a Memory that tells of each saved job before the caller knows.
type saving struct {
	*dlq.Memory
	saved func(job dlq.Job) error // what the caller gets
}

func (s *saving) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := s.Memory.SaveJob(ctx, job); err != nil {
		return err
	}
	return s.saved(job)
}

// flaky is a Memory whose calls fail where fail says so; after a failed write
// nothing has been written.
type flaky struct {
	*dlq.Memory
	fail func(op string) error // nil fails nothing
}

func (f *flaky) err(op string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(op)
}

func (f *flaky) List(ctx context.Context, query dlq.Query) (dlq.Page, error) {
	if err := f.err("list"); err != nil {
		return dlq.Page{}, err
	}
	return f.Memory.List(ctx, query)
}

func (f *flaky) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	if err := f.err("claim"); err != nil {
		return make([]dlq.Entry, len(ids)), slices.Repeat([]error{err}, len(ids))
	}
	return f.Memory.Claim(ctx, claim, ids...)
}

func (f *flaky) Remove(ctx context.Context, token string, ids ...string) []error {
	if err := f.err("remove"); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	return f.Memory.Remove(ctx, token, ids...)
}

func (f *flaky) Release(ctx context.Context, token string, ids ...string) []error {
	if err := f.err("release"); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	return f.Memory.Release(ctx, token, ids...)
}

func (f *flaky) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := f.err("save"); err != nil {
		return err
	}
	return f.Memory.SaveJob(ctx, job)
}

func (f *flaky) Job(ctx context.Context, id string) (dlq.Job, error) {
	if err := f.err("job"); err != nil {
		return dlq.Job{}, err
	}
	return f.Memory.Job(ctx, id)
}

func (f *flaky) Jobs(ctx context.Context) ([]dlq.Job, error) {
	if err := f.err("jobs"); err != nil {
		return nil, err
	}
	return f.Memory.Jobs(ctx)
}

// filled has n letters, a second apart, the last one a minute ago.
func filled(t *testing.T, n int) *dlq.Memory {
	t.Helper()
	store := dlq.NewMemory(dlq.MemoryConfig{})
	manager := dlq.NewManager(store, nil, dlq.Config{})
	all := make([]delivery.DeadLetter, n)
	for i := range all {
		all[i] = letter(fmt.Sprintf("letter-%05d", i))
		all[i].At = time.Now().Add(-time.Minute - time.Duration(n-i)*time.Second)
	}
	require.NoError(t, manager.DeadLetter(context.Background(), all...))
	return store
}

// running runs the manager's jobs until the returned function is called.
func running(t *testing.T, manager *dlq.Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- manager.RunJobs(ctx) }()
	return func() {
		cancel()
		assert.NoError(t, <-ended)
	}
}

func start(t *testing.T, manager *dlq.Manager, filter dlq.Filter, rate float64) dlq.Job {
	t.Helper()
	job, err := manager.StartReplay(context.Background(), filter, dlq.ReplayConfig{Rate: rate})
	require.NoError(t, err)
	return job
}

func progress(t *testing.T, manager *dlq.Manager, id string) dlq.Job {
	t.Helper()
	job, err := manager.Job(context.Background(), id)
	require.NoError(t, err)
	return job
}

// requireSentOnce wants each of n letters sent once, as generation 1.
func requireSentOnce(t *testing.T, sender *sender, n int) {
	t.Helper()
	times := make(map[string]int)
	for _, envelope := range sender.sent() {
		times[envelope.ID]++
		require.Equal(t, 1, envelope.Generation)
	}
	require.Len(t, times, n)
	for id, n := range times {
		require.Equal(t, 1, n, id)
	}
}
