package breaker

import (
	"fmt"
	"runtime/debug"
	"slices"
)

// Watch has observer called at each change of state from now on, until stop is
// called. The calls are made one after another, in the order of the changes, by the
// goroutine that made a change or by one that did so shortly before. That goroutine
// waits for the observer, so an observer should be quick. No lock is held: an
// observer may use the breaker, and is called with the changes that it makes after
// it has returned. A panic of an observer is logged, and goes no further: the
// goroutine that happens to call it has nothing to do with it.
//
// stop may be called more than once, and by the observer. It doesn't wait for a call
// that is under way. A nil observer is never called, nor is one of a Breaker that
// can't be used.
func (b *Breaker) Watch(observer func(Change)) (stop func()) {
	if observer == nil || b.Err() != nil {
		return func() {}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	added := b.observers.add(observer)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.observers.remove(added)
	}
}

// observers are those of a Breaker, and the notifications that they have still to
// get. The Breaker's mutex guards them.
type observers struct {
	all       []*observer
	queue     []notification
	notifying bool // a goroutine is in notify
}

type observer struct {
	call    func(Change)
	stopped bool
}

// notification is a change that one observer has to be called with.
type notification struct {
	to     *observer
	change Change
}

func (o *observers) add(call func(Change)) *observer {
	added := &observer{call: call}
	o.all = append(o.all, added)
	return added
}

func (o *observers) remove(stopped *observer) {
	stopped.stopped = true
	if i := slices.Index(o.all, stopped); i >= 0 {
		o.all = slices.Delete(o.all, i, i+1)
	}
}

func (o *observers) enqueue(change Change) {
	for _, each := range o.all {
		o.queue = append(o.queue, notification{to: each, change: change})
	}
}

// due says whether there are notifications and no goroutine that makes them.
func (o *observers) due() bool { return len(o.queue) > 0 && !o.notifying }

// next takes the next notification out of the queue.
func (o *observers) next() (notification, bool) {
	for len(o.queue) > 0 {
		next := o.queue[0]
		o.queue = o.queue[1:]
		if !next.to.stopped {
			return next, true
		}
	}
	o.queue = nil
	return notification{}, false
}

// notify calls the observers, unless another goroutine does, which then makes these
// calls, too. So the order is kept, and an observer that changes the state itself
// isn't called inside its own call.
func (b *Breaker) notify() {
	b.mu.Lock()
	mine := b.observers.due()
	if mine {
		b.observers.notifying = true
	}
	b.mu.Unlock()
	if !mine {
		return
	}
	ended := false
	defer func() {
		if !ended { // an observer called runtime.Goexit
			b.mu.Lock()
			b.observers.notifying = false
			b.mu.Unlock()
			b.notify()
		}
	}()
	for {
		b.mu.Lock()
		next, ok := b.observers.next()
		if !ok {
			b.observers.notifying = false
		}
		b.mu.Unlock()
		if !ok {
			ended = true
			return
		}
		b.config.callGuarded(next.to, next.change)
	}
}

// callGuarded calls an observer, and survives its panic.
func (c *Config) callGuarded(to *observer, change Change) {
	defer func() {
		if value := recover(); value != nil {
			c.Logger.Error("breaker observer panicked", "breaker", change.Name, "to", change.To.String(),
				"panic", fmt.Sprint(value), "stack", string(debug.Stack()))
		}
	}()
	to.call(change)
}
