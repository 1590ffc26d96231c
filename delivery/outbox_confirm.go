package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/esh3artech/barid/retry"
)

const (
	// confirmDelay is for how long confirmations are gathered before they are
	// recorded. By then most messages have got further: their confirmations are
	// late and change nothing.
	confirmDelay = time.Second
	// confirmBatch is how many confirmations are recorded together, maxUnrecorded
	// how many may wait again while the store is down. The messages of those beyond
	// it a RetryWorker sends once more.
	confirmBatch  = 1000
	maxUnrecorded = 10_000
)

// confirmations are the updates by which messages that the transport has
// confirmed become queued. They are gathered, and recorded a little later. None
// of them may be needed: a message whose confirmation is lost is sent once more.
type confirmations struct {
	life   context.Context // of what goes on in the background
	store  Store
	delay  time.Duration
	writer chan struct{} // holds one while somebody records

	mu      sync.Mutex
	waiting []Update
	timer   *time.Timer // nil unless it will record
	failure error       // of the last try, nil when that went well
	ended   bool
}

func newConfirmations(life context.Context, store Store, delay time.Duration) *confirmations {
	return &confirmations{life: life, store: store, delay: min(delay, confirmDelay), writer: make(chan struct{}, 1)}
}

// add has updates recorded a little later, and tried again until that works.
func (c *confirmations) add(updates []Update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || len(updates) == 0 {
		return
	}
	c.waiting = append(c.waiting, updates...)
	if c.timer == nil {
		c.timer = time.AfterFunc(c.delay, func() {
			c.mu.Lock()
			c.timer = nil
			c.mu.Unlock()
			_ = c.record(c.life) // what failed waits again
		})
	}
}

// record records what waits. After an error some of it waits again.
func (c *confirmations) record(ctx context.Context) error {
	select {
	case c.writer <- struct{}{}:
	default:
		select {
		case c.writer <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-c.writer }()
	for batch := c.take(); batch != nil; batch = c.take() {
		again, err := c.update(ctx, batch)
		c.mu.Lock()
		c.failure = err
		c.mu.Unlock()
		if err != nil {
			c.add(again[:min(len(again), c.room())])
			return err
		}
	}
	return nil
}

// room is how many may wait beside those that do. It bounds only what could not
// be recorded: while the store works, all have to be recorded, and soon are.
func (c *confirmations) room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, maxUnrecorded-len(c.waiting))
}

func (c *confirmations) take() []Update {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.waiting), confirmBatch)
	if n == 0 {
		c.waiting = nil
		return nil
	}
	batch := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	return batch
}

// update returns what has to be tried again, and why.
func (c *confirmations) update(ctx context.Context, batch []Update) (again []Update, failure error) {
	now := time.Now()
	for i := range batch {
		if batch[i].ClaimedBy != "" {
			// Counted from now: a confirmation that had to wait must not make a message
			// due that waits in this process.
			batch[i].DueAt = now.Add(sessionHold)
		}
	}
	limited := within(ctx, now, settleTimeout)
	defer limited.end()
	_, errs := c.store.Update(limited, batch...)
	for i, err := range eachOf(errs, len(batch)) {
		if unanswered(err) {
			again, failure = append(again, batch[i]), err
		}
	}
	return again, failure
}

// finish records what waits, and tries again until that works or ctx ends.
func (c *confirmations) finish(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := c.record(ctx)
		if err == nil || !retry.Wait(ctx.Done(), backoff(tries, confirmDelay)) {
			return err
		}
	}
}

// end drops what waits, and returns what has kept it from being recorded.
func (c *confirmations) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended, c.waiting = true, nil
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	return c.failure
}
