package memory

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/esh3artech/barid/delivery"
)

// subscription is a delivery.Subscription and a delivery.Pauser.
//
// Locks are taken in this order: the subscription's, then the queues'. Ack
// takes neither of them, unless the subscription waits for room.
type subscription struct {
	transport *Transport
	prefetch  int64
	wakeUp    chan struct{} // holds at most one signal
	done      chan struct{} // closed by Close

	// unsettled counts the messages in hand. It grows under the queues' lock, and
	// shrinks without it.
	unsettled [levels]atomic.Int64
	// starved asks the next settle to look whether a message is ready.
	starved atomic.Bool

	// Guarded by the queues' lock.
	paused  bool
	waiting bool

	mu       sync.Mutex
	closed   bool
	inHand   []*incoming // and settled ones, until forgetSettled
	taken    []*message
	returned []delivery.Incoming
}

var (
	_ delivery.Subscription = (*subscription)(nil)
	_ delivery.Pauser       = (*subscription)(nil)
)

func newSubscription(t *Transport, prefetch int) *subscription {
	return &subscription{
		transport: t,
		prefetch:  int64(prefetch),
		wakeUp:    make(chan struct{}, 1),
		done:      make(chan struct{}),
	}
}

// room returns how many more messages of a level the subscription may hold. It
// is called under the queues' lock, for levels with a message that is ready.
// When there is no room, it asks the next settle to look again. Then it looks
// once more, because that settle may have come in between.
func (s *subscription) room(level int) int {
	room := s.prefetch - s.unsettled[level].Load()
	if room <= 0 {
		s.starved.Store(true)
		room = s.prefetch - s.unsettled[level].Load()
	}
	return int(max(0, room))
}

func (s *subscription) signal() {
	select {
	case s.wakeUp <- struct{}{}:
	default:
	}
}

// Receive implements delivery.Subscription.
func (s *subscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	for {
		incomings, err := s.fetch(ctx)
		if err != nil || len(incomings) > 0 {
			return incomings, err
		}
		select {
		case <-s.wakeUp:
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

// fetch returns the messages that are ready. When there are none, the
// subscription waits to be woken.
func (s *subscription) fetch(ctx context.Context) ([]delivery.Incoming, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, delivery.ErrClosed
	}
	q := s.transport.queues
	if err := ctx.Err(); err != nil {
		// It may have been woken for a message that another subscription has to take
		// now.
		q.mu.Lock()
		q.stopWaiting(s)
		q.wake()
		q.mu.Unlock()
		return nil, err
	}
	q.mu.Lock()
	s.taken = q.take(s, s.taken[:0])
	if len(s.taken) == 0 {
		q.startWaiting(s)
	} else {
		q.stopWaiting(s)
	}
	q.wake()
	q.mu.Unlock()
	return s.handOver(), nil
}

// handOver makes incomings of the messages that were taken.
func (s *subscription) handOver() []delivery.Incoming {
	s.forgetSettled()
	clear(s.returned)
	s.returned = s.returned[:0]
	for rest := s.taken; len(rest) > 0; {
		chunk := make([]incoming, min(chunkSize, len(rest)))
		for i := range chunk {
			in := &chunk[i]
			in.message, in.subscription, in.envelope = rest[i], s, rest[i].envelope
			s.inHand = append(s.inHand, in)
			s.returned = append(s.returned, in)
		}
		rest = rest[len(chunk):]
	}
	clear(s.taken)
	return s.returned
}

// forgetSettled drops settled incomings when they are at least half of the
// list, so that each costs little and the list stays short.
func (s *subscription) forgetSettled() {
	open := 0
	for level := range s.unsettled {
		open += int(s.unsettled[level].Load())
	}
	open -= len(s.taken)
	if len(s.inHand) < 2*open+chunkSize {
		return
	}
	kept := s.inHand[:0]
	for _, in := range s.inHand {
		if in.state.Load() == stateOpen {
			kept = append(kept, in)
		}
	}
	clear(s.inHand[len(kept):])
	s.inHand = kept
}

// settled makes room for one more message of a level.
func (s *subscription) settled(level int) {
	s.unsettled[level].Add(-1)
	if s.starved.Load() && s.starved.CompareAndSwap(true, false) {
		q := s.transport.queues
		q.mu.Lock()
		q.wake()
		q.mu.Unlock()
	}
}

// Pause implements delivery.Pauser. Messages that Receive has returned stay in
// hand.
func (s *subscription) Pause(ctx context.Context) error { return s.setPaused(ctx, true) }

// Resume implements delivery.Pauser.
func (s *subscription) Resume(ctx context.Context) error { return s.setPaused(ctx, false) }

func (s *subscription) setPaused(ctx context.Context, paused bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return delivery.ErrClosed
	}
	q := s.transport.queues
	q.mu.Lock()
	defer q.mu.Unlock()
	s.paused = paused
	q.wake()
	return nil
}

// Close implements delivery.Subscription. Unsettled messages go back to their
// old places in the queues. Settling one of them then returns
// delivery.ErrStale.
func (s *subscription) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.done)
	q := s.transport.queues
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(s.transport.subscriptions, s)
	q.stopWaiting(s)
	for _, in := range s.inHand {
		if in.state.CompareAndSwap(stateOpen, stateStale) {
			q.giveBack(in.message)
		}
	}
	s.inHand, s.taken = nil, nil
	q.wake()
	return nil
}
