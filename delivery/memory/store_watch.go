package memory

import (
	"slices"
	"sync"
	"time"
)

// watchers are the callers of Watch, which are told of due times.
type watchers struct {
	mu  sync.Mutex
	all []*watcher // replaced as a whole, never changed
}

func (w *watchers) add(due func(time.Time)) (stop func()) {
	added := &watcher{due: due, idle: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(slices.Clip(w.all), added)
	return func() {
		w.mu.Lock()
		w.all = slices.DeleteFunc(slices.Clone(w.all), func(other *watcher) bool { return other == added })
		w.mu.Unlock()
		added.stop()
	}
}

// tell calls every watcher, without holding a lock. It does nothing when no
// time was added to due.
func (w *watchers) tell(due earliest) {
	if due.at.IsZero() {
		return
	}
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	for _, watcher := range all {
		watcher.tell(due.at)
	}
}

type watcher struct {
	due func(time.Time)

	mu      sync.Mutex
	calls   int // how many are under way
	stopped bool
	idle    chan struct{} // closed when the watcher is stopped and its last call is over
}

func (w *watcher) tell(at time.Time) {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return
	}
	w.calls++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.calls--; w.stopped && w.calls == 0 {
			close(w.idle)
		}
	}()
	w.due(at)
}

// stop waits for calls that are under way.
func (w *watcher) stop() {
	w.mu.Lock()
	if !w.stopped {
		w.stopped = true
		if w.calls == 0 {
			close(w.idle)
		}
	}
	w.mu.Unlock()
	<-w.idle
}
