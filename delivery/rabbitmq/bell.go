package rabbitmq

import "sync"

// bell wakes everybody who listens, once for each ring.
type bell struct {
	mu     sync.Mutex
	ringer chan struct{}
}

// listen returns a channel that the next ring closes. Listen first, then look
// at what the ring is about.
func (b *bell) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ringer == nil {
		b.ringer = make(chan struct{})
	}
	return b.ringer
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ringer != nil {
		close(b.ringer)
		b.ringer = nil
	}
}
