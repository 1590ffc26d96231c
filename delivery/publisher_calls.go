package delivery

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
)

// calls counts the calls of a Publisher that go on, so that Close can wait for
// them. A call costs two atomic additions.
type calls struct {
	// n is how many go on; callsClosed is subtracted from it once calls are closed.
	n    atomic.Int64
	idle chan struct{} // closed when none goes on after that
	once sync.Once
}

const callsClosed = math.MaxInt64 / 2

func newCalls() *calls { return &calls{idle: make(chan struct{})} }

// begin says whether a call may begin, which then has to end.
func (c *calls) begin() bool {
	if c.n.Add(1) > 0 {
		return true
	}
	c.end()
	return false
}

func (c *calls) end() {
	if c.n.Add(-1) == -callsClosed {
		c.once.Do(func() { close(c.idle) })
	}
}

// close lets no more calls begin, and waits until none goes on or ctx ends. It may
// be called again.
func (c *calls) close(ctx context.Context) error {
	for {
		n := c.n.Load()
		if n < 0 {
			break // closed before
		}
		if c.n.CompareAndSwap(n, n-callsClosed) {
			if n == 0 {
				c.once.Do(func() { close(c.idle) })
			}
			break
		}
	}
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-c.idle: // an ended ctx does not hide that
		return nil
	default:
		return ctx.Err()
	}
}
