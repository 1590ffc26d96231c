package sqlstore

import (
	"sync"
	"time"
)

// watches are those who want to know what becomes due. A goroutine tells them, so
// that nobody who uses the store waits for them; what becomes due while they are
// told comes as one time, the earliest.
type watches struct {
	ended sync.WaitGroup
	wake  chan struct{}

	mu     sync.Mutex
	all    map[*watch]struct{}
	due    time.Time // not told yet
	closed bool
}

// watch is one of them. Its lock is held while it is told, so that stop returns
// after the last call.
type watch struct {
	mu      sync.Mutex
	stopped bool
	due     func(at time.Time)
}

func newWatches() *watches {
	w := &watches{wake: make(chan struct{}, 1), all: make(map[*watch]struct{})}
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

// Watch implements delivery.StoreWatcher. What becomes due at about the same time
// may be told as one, by the earliest time.
func (s *Store) Watch(due func(at time.Time)) (stop func()) {
	if due == nil {
		return func() {}
	}
	w := &watch{due: due}
	s.watches.mu.Lock()
	s.watches.all[w] = struct{}{}
	s.watches.mu.Unlock()
	return func() {
		s.watches.mu.Lock()
		delete(s.watches.all, w)
		s.watches.mu.Unlock()
		w.mu.Lock()
		w.stopped = true
		w.mu.Unlock()
	}
}

// tell has everybody told, unless at is zero.
func (w *watches) tell(at time.Time) {
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

// take is what has to be told, and to whom.
func (w *watches) take() (at time.Time, all []*watch) {
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

func (w *watch) tell(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.due(at)
	}
}

// close has told what there is to tell, and ends the goroutine.
func (w *watches) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.wake)
	}
	w.mu.Unlock()
	w.ended.Wait()
}
