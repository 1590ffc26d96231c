package sqlstore

import (
	"context"
	"runtime"
	"sync"
)

// batcher collects the items that many callers submit, and has them carried out
// in batches: while one batch is under way, the next one grows.
type batcher[T sized] struct {
	limit size
	queue chan T
	ended sync.WaitGroup

	mu     sync.RWMutex // held for reading while an item is submitted
	closed bool
}

// sized is an item of a batch. A batch ends with the item that makes its rows
// reach the batcher's limit, or before the item that is too large for it.
type sized interface{ size() size }

// size is how much an item adds to a batch.
type size struct{ rows, bytes int }

func (s size) plus(other size) size {
	return size{rows: s.rows + other.rows, bytes: s.bytes + other.bytes}
}

// maxBytes bounds the bytes of bodies and other texts in a transaction,
// approximately. It bounds the memory of a transaction, and the size of a
// message to the server. A larger item gets a transaction of its own.
const maxBytes = 16 << 20

// newBatcher starts goroutines that carry batches out. worker is called for
// each: run gets the items of a batch, whose slice it must not keep, and end is
// called when the goroutine ends. A batch has at most so many rows, and
// maxBytes.
func newBatcher[T sized](workers, rows int, worker func() (run func(batch []T), end func())) *batcher[T] {
	b := &batcher[T]{limit: size{rows: rows, bytes: maxBytes}, queue: make(chan T, rows)}
	for range workers {
		run, end := worker()
		b.ended.Go(func() {
			defer end()
			b.work(run)
		})
	}
	return b
}

// await submits the item, and returns what is sent to done, or ctx's error if that
// comes first. Then the item may be carried out later.
func (b *batcher[T]) await(ctx context.Context, item T, done <-chan error) error {
	if err := b.submit(ctx, item); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // both at once: the answer is worth more
		return err
	default:
		return ctx.Err()
	}
}

// submit hands the item to a worker. When no worker will see it, it returns
// ctx's error or errClosed.
func (b *batcher[T]) submit(ctx context.Context, item T) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return errClosed
	}
	select {
	case b.queue <- item:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close carries out what was submitted, and ends the workers.
func (b *batcher[T]) close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.queue)
	}
	b.mu.Unlock()
	b.ended.Wait()
}

// work runs batches until the batcher is closed.
func (b *batcher[T]) work(run func([]T)) {
	var batch []T
	var item T
	var open, left bool // left: the item was too large for the batch before
	for {
		if !left {
			if item, open = <-b.queue; !open {
				return
			}
		}
		left = false
		batch = append(batch[:0], item)
		total := item.size()
		// Goroutines that are about to submit an item get the processor now, because
		// a larger batch is worth more than the time that it takes.
		runtime.Gosched()
	fill:
		for total.rows < b.limit.rows {
			select {
			case item, open = <-b.queue:
				if !open {
					break fill
				}
				with := total.plus(item.size())
				if left = with.bytes > b.limit.bytes; left {
					break fill
				}
				batch = append(batch, item)
				total = with
			default:
				break fill
			}
		}
		run(batch)
		clear(batch)
	}
}
