package breaker

import (
	"fmt"
	"runtime/debug"
	"slices"
)

// Watch has observer called at each change of state from now on, until stop is
// called. The calls come one after another, in the order of the changes, from
// the goroutine that made a change or from one that did so shortly before;
// that one waits for the observer, so an observer should be quick. No lock is
// held: an observer may use the breaker, and what that changes is told after
// it has returned. A panic of an observer is logged, and goes no further: the
// goroutine that happens to call it has nothing to do with it.
//
// stop may be called more than once, and by the observer. It doesn't wait for
// a call that is under way. A nil observer, and one of a Breaker that can't be
// used, is never called.
func (b *Breaker) Watch(observer func(Change)) (stop func()) {
	if observer == nil || b.Err() != nil {
		return func() {}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	added := b.news.watch(observer)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.news.unwatch(added)
	}
}

// news is what observers are still to be told. It is guarded by the Breaker's
// mutex.
type news struct {
	observers []*observer
	queue     []call
	telling   bool // a goroutine is in tell
}

type observer struct {
	notify  func(Change)
	stopped bool
}

type call struct {
	to     *observer
	change Change
}

func (n *news) watch(notify func(Change)) *observer {
	added := &observer{notify: notify}
	n.observers = append(n.observers, added)
	return added
}

func (n *news) unwatch(gone *observer) {
	gone.stopped = true
	if i := slices.Index(n.observers, gone); i >= 0 {
		n.observers = slices.Delete(n.observers, i, i+1)
	}
}

func (n *news) add(change Change) {
	for _, each := range n.observers {
		n.queue = append(n.queue, call{to: each, change: change})
	}
}

// waiting says whether there is something to tell and nobody at it.
func (n *news) waiting() bool { return len(n.queue) > 0 && !n.telling }

// take returns the next call.
func (n *news) take() (call, bool) {
	for len(n.queue) > 0 {
		next := n.queue[0]
		n.queue = n.queue[1:]
		if !next.to.stopped {
			return next, true
		}
	}
	n.queue = nil
	return call{}, false
}

// tell makes the calls that wait, unless another goroutine is at it, which
// then makes them: so the order is kept, and an observer that changes the
// state itself isn't called inside its own call.
func (b *Breaker) tell() {
	b.mu.Lock()
	mine := b.news.waiting()
	if mine {
		b.news.telling = true
	}
	b.mu.Unlock()
	if !mine {
		return
	}
	ended := false
	defer func() {
		if !ended { // an observer called runtime.Goexit
			b.mu.Lock()
			b.news.telling = false
			b.mu.Unlock()
			b.tell()
		}
	}()
	for {
		b.mu.Lock()
		next, ok := b.news.take()
		if !ok {
			b.news.telling = false
		}
		b.mu.Unlock()
		if !ok {
			ended = true
			return
		}
		b.notify(next)
	}
}

// notify makes a call, and survives its panic.
func (b *Breaker) notify(c call) {
	defer func() {
		if value := recover(); value != nil {
			b.config.Logger.Error("observer of the breaker panicked", "breaker", c.change.Name, "to", c.change.To.String(),
				"panic", fmt.Sprint(value), "stack", string(debug.Stack()))
		}
	}()
	c.to.notify(c.change)
}
