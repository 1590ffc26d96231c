package sqlstore

import (
	"sync"
	"time"
)

// watches are those who want to know what becomes due.
type watches struct {
	mu  sync.RWMutex
	all map[*watch]struct{}
}

// watch is one of them. Its lock is held while it is told, so that stop returns
// after the last call.
type watch struct {
	mu      sync.Mutex
	stopped bool
	due     func(at time.Time)
}

// Watch implements delivery.StoreWatcher.
func (s *Store) Watch(due func(at time.Time)) (stop func()) {
	w := &watch{due: due}
	if due == nil {
		return func() {}
	}
	s.watches.mu.Lock()
	if s.watches.all == nil {
		s.watches.all = make(map[*watch]struct{})
	}
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

// tell tells everybody, unless at is zero.
func (w *watches) tell(at time.Time) {
	if at.IsZero() {
		return
	}
	at = inMicros(at)
	w.mu.RLock()
	all := make([]*watch, 0, len(w.all))
	for each := range w.all {
		all = append(all, each)
	}
	w.mu.RUnlock()
	for _, each := range all {
		each.mu.Lock()
		if !each.stopped {
			each.due(at)
		}
		each.mu.Unlock()
	}
}
