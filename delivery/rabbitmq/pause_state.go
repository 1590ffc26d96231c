package rabbitmq

import (
	"context"
	"maps"
	"sync"

	"github.com/esh3artech/barid/delivery"
)

// pauseState is whether a subscription is to be paused, and which of its sources
// do not follow yet. Sources without a channel are not waited for: they follow
// when they have one again.
type pauseState struct {
	changed broadcast

	mu      sync.Mutex
	paused  bool
	open    map[*source]bool // those that have a channel
	pending map[*source]bool // those whose channel is not yet as wanted
}

func newPauseState() pauseState {
	return pauseState{open: make(map[*source]bool), pending: make(map[*source]bool)}
}

// set pauses or resumes. It returns when all sources that have a channel follow,
// or when ctx ends, or with delivery.ErrClosed when closed is.
func (p *pauseState) set(ctx context.Context, closed <-chan struct{}, paused bool) error {
	select {
	case <-closed:
		return delivery.ErrClosed
	default:
	}
	p.mu.Lock()
	if p.paused != paused {
		p.paused, p.pending = paused, maps.Clone(p.open)
	}
	p.mu.Unlock()
	p.changed.notify()
	for {
		changed := p.changed.listen()
		if p.reached() {
			return nil
		}
		select {
		case <-changed:
		case <-closed:
			return delivery.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *pauseState) reached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending) == 0
}

// wanted says whether the channels are to be paused.
func (p *pauseState) wanted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}

// opened says that a source has a channel, which from now on set waits for.
func (p *pauseState) opened(source *source) {
	p.mu.Lock()
	p.open[source], p.pending[source] = true, true
	p.mu.Unlock()
	p.changed.notify()
}

// closed says that a source has no channel any longer.
func (p *pauseState) closed(source *source) {
	p.mu.Lock()
	delete(p.open, source)
	delete(p.pending, source)
	p.mu.Unlock()
	p.changed.notify()
}

// applied says that a source's channel is paused, or is not.
func (p *pauseState) applied(source *source, paused bool) {
	p.mu.Lock()
	follows := p.pending[source] && p.paused == paused
	if follows {
		delete(p.pending, source)
	}
	p.mu.Unlock()
	if follows {
		p.changed.notify()
	}
}
