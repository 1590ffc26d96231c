package sqlstore

import (
	"context"
	"runtime"
	"sync"
)

// batcher collects what many callers submit, and has it carried out together:
// while one batch is under way the next one grows.
type batcher[J sized] struct {
	limit int
	jobs  chan J
	ended sync.WaitGroup

	mu     sync.RWMutex // held for reading while a job is submitted
	closed bool
}

// sized is what a batch is made of. A batch ends with the job that makes the sum
// of sizes reach the batcher's limit.
type sized interface{ size() int }

// newBatcher starts workers goroutines, each with a run of its own, which gets
// the jobs of a batch and must not keep the slice, and an end.
func newBatcher[J sized](workers, limit int, worker func() (run func(batch []J), end func())) *batcher[J] {
	b := &batcher[J]{limit: limit, jobs: make(chan J, limit)}
	for range workers {
		run, end := worker()
		b.ended.Go(func() {
			defer end()
			b.work(run)
		})
	}
	return b
}

// submit hands job to a worker. It returns ctx's error, or errClosed, when none
// will see it.
func (b *batcher[J]) submit(ctx context.Context, job J) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return errClosed
	}
	select {
	case b.jobs <- job:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close has what was submitted carried out, and ends the workers.
func (b *batcher[J]) close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.jobs)
	}
	b.mu.Unlock()
	b.ended.Wait()
}

func (b *batcher[J]) work(run func([]J)) {
	var batch []J
	for job := range b.jobs {
		batch = append(batch[:0], job)
		total := job.size()
		// Those who wait for a processor to submit their job get it now: a larger
		// batch is worth more than the moment.
		runtime.Gosched()
	fill:
		for total < b.limit {
			select {
			case job, open := <-b.jobs:
				if !open {
					break fill
				}
				batch = append(batch, job)
				total += job.size()
			default:
				break fill
			}
		}
		run(batch)
		clear(batch)
	}
}
