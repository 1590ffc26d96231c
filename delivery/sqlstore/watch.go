package sqlstore

import (
	"sync"
	"time"
)

// watchers are the callers of Watch, which are told of due times. A goroutine
// tells them, so that no user of the store waits for them. What becomes due
// meanwhile is told afterwards, as one time, the earliest.
type watchers struct {
	ended sync.WaitGroup
	wake  chan struct{}

	mu     sync.Mutex
	all    map[*watcher]struct{}
	due    time.Time // that was not told yet
	closed bool
}

// watcher is one of them. Its lock is held while it is told, so that stop
// returns after the last call.
type watcher struct {
	mu      sync.Mutex
	stopped bool
	due     func(at time.Time)
}

func newWatchers() *watchers {
	w := &watchers{wake: make(chan struct{}, 1), all: make(map[*watcher]struct{})}
	w.ended.Go(func() {
		for range w.wake {
			at, all := w.take()
			for _, each := range all {
				each.tell(at)
			}
		}
	})
	return w
}

// Watch implements delivery.StoreWatcher. Records that become due at about the
// same time may be told of together, by the earliest time.
func (s *Store) Watch(due func(at time.Time)) (stop func()) {
	if due == nil || s.usable() != nil {
		return func() {}
	}
	w := &watcher{due: due}
	s.watchers.mu.Lock()
	s.watchers.all[w] = struct{}{}
	s.watchers.mu.Unlock()
	return func() {
		s.watchers.mu.Lock()
		delete(s.watchers.all, w)
		s.watchers.mu.Unlock()
		w.mu.Lock()
		w.stopped = true
		w.mu.Unlock()
	}
}

// tell has all watchers told, unless at is zero.
func (w *watchers) tell(at time.Time) {
	if at.IsZero() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.all) == 0 {
		return
	}
	w.due = earliest(w.due, inMicros(at))
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns the time that has to be told, and the watchers.
func (w *watchers) take() (at time.Time, all []*watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, w.due = w.due, time.Time{}
	if at.IsZero() {
		return at, nil
	}
	for each := range w.all {
		all = append(all, each)
	}
	return at, all
}

func (w *watcher) tell(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.due(at)
	}
}

// close tells the watchers what there is to tell, and ends the goroutine.
func (w *watchers) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.wake)
	}
	w.mu.Unlock()
	w.ended.Wait()
}

// earliest is the earlier of two times. A zero time does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
