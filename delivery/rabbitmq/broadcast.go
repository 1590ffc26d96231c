package rabbitmq

import "sync"

// broadcast wakes all goroutines that wait for a change, as often as there is
// one.
type broadcast struct {
	mu      sync.Mutex
	changed chan struct{} // nil while nobody listens
}

// listen returns a channel that the next notify closes. Listen first and look
// at the state afterwards: then no change is missed.
func (b *broadcast) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.changed
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}
