package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// errCancelled is the end of a consumer by the broker's will.
var errCancelled = errors.New("rabbitmq: consumer cancelled by the broker, the queue was deleted or moved")

// maxPrefetch is the limit of AMQP's prefetch count, 16 bits.
const maxPrefetch = 65535

// Subscription fetches from its queues over a connection of its own, with a
// channel for each, and reconnects for as long as it is open.
type Subscription struct {
	transport *Transport
	sources   []source
	prefetch  int // of a level
	cancel    context.CancelFunc
	done      chan struct{} // closed when the subscription is to end
	ended     chan struct{} // closed when it has
	endOnce   sync.Once

	mu     sync.Mutex
	ready  [4][]*incoming   // by priority, the highest first
	waits  int              // how many are ready
	paused bool             // what the host wants
	live   map[*source]bool // those that have a stream
	behind map[*source]bool // those whose stream is not yet as the host wants
	batch  []delivery.Incoming

	arrived chan struct{} // capacity 1: something is ready
	changed bell          // paused or behind
}

// Subscribe implements delivery.Transport. The prefetch is at most 65535.
func (t *Transport) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	if t == nil || t.life == nil || t.closing.Load() {
		return nil, delivery.ErrClosed
	}
	defaultTo(&config.Prefetch, 100)
	if config.Prefetch < 1 || config.Prefetch > maxPrefetch {
		return nil, fmt.Errorf("%w: SubscribeConfig.Prefetch is %d, want 1 to %d", ErrConfig, config.Prefetch, maxPrefetch)
	}
	s, err := t.subscribe(ctx, t.sources, config.Prefetch)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(t.topology.Levels, func(l Level) bool { return len(l.Shards) > 0 }) {
		return unpausable{s}, nil
	}
	return s, nil
}

// unpausable is a Subscription that is no delivery.Pauser. A shard's consumer
// that pauses would have another process overtake what is in hand here.
type unpausable struct{ subscription *Subscription }

func (u unpausable) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	return u.subscription.Receive(ctx)
}

func (u unpausable) Close() error { return u.subscription.Close() }

// subscribe fetches from sources until Close.
func (t *Transport) subscribe(ctx context.Context, sources []source, prefetch int) (*Subscription, error) {
	life, cancel := context.WithCancel(context.Background())
	s := &Subscription{
		transport: t,
		sources:   sources,
		prefetch:  prefetch,
		live:      make(map[*source]bool),
		behind:    make(map[*source]bool),
		cancel:    cancel,
		done:      make(chan struct{}),
		ended:     make(chan struct{}),
		arrived:   make(chan struct{}, 1),
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(t.life, stop)()
	var streams []*stream
	link, err := t.connect(ctx, "consume", func(link *link) (err error) {
		streams, err = s.openStreams(ctx, link)
		if isCode(err, amqp.NotFound) && !t.config.Passive {
			// The queue was there when the transport was opened.
			t.stale.Store(true)
			streams, err = s.openStreams(ctx, link)
		}
		return err
	})
	if err != nil {
		cancel()
		if t.closing.Load() {
			err = delivery.ErrClosed
		}
		return nil, err
	}
	t.mu.Lock()
	closed := t.subscriptions == nil
	if !closed {
		t.subscriptions[s] = struct{}{}
	}
	t.mu.Unlock()
	for i, st := range streams {
		if st != nil {
			s.attend(&s.sources[i], true) // from now on a Pause waits for it
		}
	}
	go s.run(life, link, streams)
	if closed {
		s.end()
		return nil, delivery.ErrClosed
	}
	return s, nil
}

// openStreams opens one for each source, or none. A leftover that is gone has
// none.
func (s *Subscription) openStreams(ctx context.Context, link *link) (streams []*stream, err error) {
	for i := range s.sources {
		source := &s.sources[i]
		st, err := s.reopen(ctx, link, source)
		if err != nil && (!source.leftover || !isCode(err, amqp.NotFound)) {
			for _, st := range streams {
				if st != nil {
					st.finish(link)
				}
			}
			return nil, err
		}
		streams = append(streams, st)
	}
	return streams, nil
}

// run keeps a connection with a stream for each source until ctx ends.
func (s *Subscription) run(ctx context.Context, link *link, streams []*stream) {
	defer close(s.ended)
	t := s.transport
	pause := newPause(t.config.MaxReconnectDelay)
	for {
		if link == nil {
			var err error
			if link, err = t.dialer.connect(ctx, "consume", pause, true); err != nil {
				return
			}
		}
		opened := time.Now()
		t.config.Logger.Info("rabbitmq_connected", "purpose", "consume", "address", t.dialer.address)
		var serving sync.WaitGroup
		for i := range s.sources {
			st := streams[i]
			serving.Go(func() { s.serve(ctx, link, &s.sources[i], st) })
		}
		clear(streams)
		serving.Wait()
		link.close()
		cause := link.cause
		link = nil
		if ctx.Err() != nil {
			return
		}
		t.stale.Store(true)
		pause.lived(opened)
		delay := pause.next(permanent(cause))
		t.logLost(ctx, "consume", cause, delay)
		wait(ctx.Done(), delay)
	}
}

// offer makes an incoming ready to be received.
func (s *Subscription) offer(in *incoming) {
	s.mu.Lock()
	rank := rankOf(in.Priority())
	s.ready[rank] = append(s.ready[rank], in)
	s.waits++
	first := s.waits == 1
	s.mu.Unlock()
	if first {
		s.rouse()
	}
}

func (s *Subscription) rouse() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// forget drops what is ready and came by a stream that is stale now.
func (s *Subscription) forget(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for rank, ready := range s.ready {
		kept := ready[:0]
		for _, in := range ready {
			if in.stream != st {
				kept = append(kept, in)
			}
		}
		s.waits -= len(ready) - len(kept)
		clear(ready[len(kept):])
		s.ready[rank] = kept
	}
}

// Receive implements delivery.Subscription. It returns all that is ready, the
// highest priority first.
func (s *Subscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	if s == nil || s.cancel == nil {
		return nil, delivery.ErrClosed
	}
	for {
		select {
		case <-s.done:
			return nil, delivery.ErrClosed
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if batch := s.collect(); len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-s.arrived:
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

func (s *Subscription) collect() []delivery.Incoming {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.batch)
	s.batch = s.batch[:0]
	if s.waits == 0 {
		return nil
	}
	for rank, ready := range s.ready {
		for _, in := range ready {
			s.batch = append(s.batch, in)
		}
		clear(ready)
		s.ready[rank] = ready[:0]
	}
	s.waits = 0
	return s.batch
}

// Pause implements delivery.Pauser. While there is no connection, it takes
// effect when there is one.
func (s *Subscription) Pause(ctx context.Context) error { return s.setPaused(ctx, true) }

// Resume implements delivery.Pauser.
func (s *Subscription) Resume(ctx context.Context) error { return s.setPaused(ctx, false) }

func (s *Subscription) setPaused(ctx context.Context, paused bool) error {
	if s == nil || s.cancel == nil {
		return delivery.ErrClosed
	}
	select {
	case <-s.done:
		return delivery.ErrClosed
	default:
	}
	s.mu.Lock()
	if s.paused != paused {
		s.paused, s.behind = paused, maps.Clone(s.live)
	}
	s.mu.Unlock()
	s.changed.ring()
	for {
		changed := s.changed.listen()
		s.mu.Lock()
		ready := len(s.behind) == 0
		s.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-s.done:
			return delivery.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Subscription) wantPaused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused
}

// attend says that a source has, or has no longer, a stream that follows Pause
// and Resume.
func (s *Subscription) attend(source *source, live bool) {
	s.mu.Lock()
	if live {
		s.live[source], s.behind[source] = true, true
	} else {
		delete(s.live, source)
		delete(s.behind, source)
	}
	s.mu.Unlock()
	s.changed.ring()
}

// applied says that a source's stream is as the host wants.
func (s *Subscription) applied(source *source, paused bool) {
	s.mu.Lock()
	news := s.behind[source] && s.paused == paused
	if news {
		delete(s.behind, source)
	}
	s.mu.Unlock()
	if news {
		s.changed.ring()
	}
}

// rankOf numbers the priorities, the highest first.
func rankOf(p delivery.Priority) int { return int(delivery.Urgent - p) }

// Close implements delivery.Subscription. It takes some seconds at most.
func (s *Subscription) Close() error {
	if s == nil || s.cancel == nil {
		return nil
	}
	t := s.transport
	t.mu.Lock()
	delete(t.subscriptions, s)
	t.mu.Unlock()
	s.end()
	return nil
}

func (s *Subscription) end() {
	s.endOnce.Do(func() {
		close(s.done)
		s.cancel()
	})
	<-s.ended
}
