package idempotency_test

import (
	"context"
	"sync"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

// faulty is a Memory whose steps can be made to fail, before or after they have
// taken place, and that counts them.
type faulty struct {
	*idempotency.Memory
	mu     sync.Mutex
	before map[string]error
	after  map[string]error
	slow   map[string]time.Duration
	counts map[string]int
}

func newFaulty() *faulty {
	return &faulty{
		Memory: idempotency.NewMemory(idempotency.MemoryConfig{}),
		before: map[string]error{}, after: map[string]error{}, slow: map[string]time.Duration{}, counts: map[string]int{},
	}
}

func (f *faulty) set(errs map[string]error, op string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs[op] = err
}

func (f *faulty) hang(op string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow[op] = d
}

func (f *faulty) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

func (f *faulty) step(ctx context.Context, op string, do func() error) error {
	f.mu.Lock()
	f.counts[op]++
	before, after, slow := f.before[op], f.after[op], f.slow[op]
	f.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if before != nil {
		return before
	}
	if err := do(); err != nil {
		return err
	}
	return after
}

func (f *faulty) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (answer idempotency.Answer, err error) {
	err = f.step(ctx, "claim", func() (err error) {
		answer, err = f.Memory.Claim(ctx, key, token, attempt, lease)
		return err
	})
	if err != nil {
		return idempotency.Answer{}, err
	}
	return answer, nil
}

func (f *faulty) Renew(ctx context.Context, key, token string, lease time.Duration) error {
	return f.step(ctx, "renew", func() error { return f.Memory.Renew(ctx, key, token, lease) })
}

func (f *faulty) Complete(ctx context.Context, key, token string, window time.Duration) (completion idempotency.Completion, err error) {
	err = f.step(ctx, "complete", func() (err error) {
		completion, err = f.Memory.Complete(ctx, key, token, window)
		return err
	})
	return completion, err
}

func (f *faulty) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	return f.step(ctx, "schedule", func() error { return f.Memory.Schedule(ctx, key, token, attempt, ttl) })
}

func (f *faulty) Release(ctx context.Context, key, token string) error {
	return f.step(ctx, "release", func() error { return f.Memory.Release(ctx, key, token) })
}
