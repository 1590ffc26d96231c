package delivery

import (
	"context"
	"sync"
	"time"
)

// wakeup is the time at which one sleeper wakes. It may be moved forward while
// the sleeper sleeps.
type wakeup struct {
	moved chan struct{} // holds at most one

	mu sync.Mutex
	at time.Time // zero: not set
}

func newWakeup() *wakeup { return &wakeup{moved: make(chan struct{}, 1)} }

// noLaterThan moves the wakeup forward to at, unless it is earlier already. It
// never blocks.
func (w *wakeup) noLaterThan(at time.Time) {
	if w.moveForward(at) {
		select {
		case w.moved <- struct{}{}:
		default:
		}
	}
}

func (w *wakeup) moveForward(at time.Time) (earlier bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.at.IsZero() && !at.Before(w.at) {
		return false
	}
	w.at = at
	return true
}

// reset forgets the time.
func (w *wakeup) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = time.Time{}
	select {
	case <-w.moved:
	default:
	}
}

// sleep sleeps until latest, or until an earlier time that the wakeup has been
// moved to, but not less than until earliest. It returns false when ctx ends.
func (w *wakeup) sleep(ctx context.Context, earliest, latest time.Time) bool {
	w.moveForward(latest)
	timer := time.NewTimer(time.Until(w.time(earliest)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return ctx.Err() == nil
		case <-w.moved:
			timer.Reset(time.Until(w.time(earliest)))
		}
	}
}

func (w *wakeup) time(earliest time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at.Before(earliest) {
		return earliest
	}
	return w.at
}
