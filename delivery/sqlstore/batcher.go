package sqlstore

import (
	"context"
	"runtime"
	"sync"
)

// batcher collects what many callers submit, and has it carried out together:
// while one batch is under way the next one grows.
type batcher[J sized] struct {
	limit size
	jobs  chan J
	ended sync.WaitGroup

	mu     sync.RWMutex // held for reading while a job is submitted
	closed bool
}

// sized is what a batch is made of. A batch ends with the job that makes the rows
// reach the batcher's limit, or before the one that is too large for it.
type sized interface{ size() size }

// size is how much a job is.
type size struct{ rows, bytes int }

func (s size) plus(other size) size {
	return size{rows: s.rows + other.rows, bytes: s.bytes + other.bytes}
}

// maxBytes bounds what goes into a transaction, by the bytes of bodies and other
// texts, more or less, so that neither its memory nor a message to the server
// grows beyond measure. What is larger by itself goes alone.
const maxBytes = 16 << 20

// newBatcher starts workers goroutines, each with a run of its own, which gets
// the jobs of a batch and must not keep the slice, and an end. A batch has up to
// so many rows, and maxBytes.
func newBatcher[J sized](workers, rows int, worker func() (run func(batch []J), end func())) *batcher[J] {
	b := &batcher[J]{limit: size{rows: rows, bytes: maxBytes}, jobs: make(chan J, rows)}
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
	var job J
	var open, left bool // left: job was too large for the batch before
	for {
		if !left {
			if job, open = <-b.jobs; !open {
				return
			}
		}
		left = false
		batch = append(batch[:0], job)
		total := job.size()
		// Those who wait for a processor to submit their job get it now: a larger
		// batch is worth more than the moment.
		runtime.Gosched()
	fill:
		for total.rows < b.limit.rows {
			select {
			case job, open = <-b.jobs:
				if !open {
					break fill
				}
				with := total.plus(job.size())
				if left = with.bytes > b.limit.bytes; left {
					break fill
				}
				batch = append(batch, job)
				total = with
			default:
				break fill
			}
		}
		run(batch)
		clear(batch)
	}
}
