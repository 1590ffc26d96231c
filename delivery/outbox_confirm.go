package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/esh3artech/barid/retry"
)

const (
	// markDelay is for how long marks are gathered. By then most messages have
	// got further, and their marks are late and change nothing.
	markDelay = time.Second
	// markBatch is how many marks are written together, maxMarks how many may
	// wait again while the store is down. What is beyond is sent once more by a
	// RetryWorker.
	markBatch = 1000
	maxMarks  = 10_000
)

// marks are updates by which messages are queued, gathered and on their way to
// the store. None of them may be needed: a message whose mark is lost is sent
// once more.
type marks struct {
	store Store
	delay time.Duration
	turn  chan struct{} // held by who writes

	mu      sync.Mutex
	waiting []Update
	timer   *time.Timer // nil unless it will write
	failure error       // of the last write, nil when that went well
	ended   bool
}

func newMarks(store Store, delay time.Duration) *marks {
	return &marks{store: store, delay: min(delay, markDelay), turn: make(chan struct{}, 1)}
}

// add has updates written a little later, and again until that works.
func (m *marks) add(updates []Update) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended || len(updates) == 0 {
		return
	}
	m.waiting = append(m.waiting, updates...)
	if m.timer == nil {
		m.timer = time.AfterFunc(m.delay, func() {
			m.mu.Lock()
			m.timer = nil
			m.mu.Unlock()
			_ = m.write(context.Background()) // what failed waits again
		})
	}
}

// write writes what waits. After an error some of it waits again.
func (m *marks) write(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
	default:
		select {
		case m.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-m.turn }()
	for batch := m.take(); batch != nil; batch = m.take() {
		again, err := m.update(ctx, batch)
		m.mu.Lock()
		m.failure = err
		m.mu.Unlock()
		if err != nil {
			m.add(again[:min(len(again), m.room())])
			return err
		}
	}
	return nil
}

// room is how many marks may wait beside those that do. It bounds what could not
// be written only: while the store works all have to be, and soon are.
func (m *marks) room() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, maxMarks-len(m.waiting))
}

func (m *marks) take() []Update {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := min(len(m.waiting), markBatch)
	if n == 0 {
		m.waiting = nil
		return nil
	}
	batch := m.waiting[:n:n]
	m.waiting = m.waiting[n:]
	return batch
}

// update returns what has to be tried again, and why.
func (m *marks) update(ctx context.Context, batch []Update) (again []Update, failure error) {
	now := time.Now()
	for i := range batch {
		if batch[i].ClaimedBy != "" {
			// Counted from now: a mark that had to wait must not make a message due
			// that waits in this process.
			batch[i].DueAt = now.Add(sessionHold)
		}
	}
	limited := within(ctx, now, settleTimeout)
	defer limited.end()
	_, errs := m.store.Update(limited, batch...)
	for i, err := range eachOf(errs, len(batch)) {
		if unanswered(err) {
			again, failure = append(again, batch[i]), err
		}
	}
	return again, failure
}

// finish writes what waits, until that works or ctx ends.
func (m *marks) finish(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := m.write(ctx)
		if err == nil || !retry.Wait(ctx.Done(), backoff(tries, markDelay)) {
			return err
		}
	}
}

// end drops what waits, and returns what has kept it from being written.
func (m *marks) end() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended, m.waiting = true, nil
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
	return m.failure
}
