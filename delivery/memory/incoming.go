package memory

import (
	"sync/atomic"

	"github.com/esh3artech/barid/delivery"
)

// incoming is one receipt of a message.
type incoming struct {
	message      *message
	subscription *subscription
	envelope     delivery.Envelope // the receiver's copy
	state        atomic.Int32
}

// The states of an incoming. It leaves stateOpen once.
const (
	stateOpen int32 = iota
	stateSettled
	stateStale // its subscription was closed before it was settled
)

// Priority implements delivery.Incoming.
func (in *incoming) Priority() delivery.Priority { return priorityOf(in.message.level) }

// Envelope implements delivery.Incoming. It never fails: nothing is encoded.
func (in *incoming) Envelope() (*delivery.Envelope, error) { return &in.envelope, nil }

// Stale implements delivery.StaleTeller.
func (in *incoming) Stale() bool { return in.state.Load() == stateStale }

// Ack implements delivery.Incoming.
func (in *incoming) Ack() error {
	if err := in.settle(); err != nil {
		return err
	}
	in.subscription.settled(in.message.level)
	return nil
}

// Nack implements delivery.Incoming. The message goes back to its old place.
func (in *incoming) Nack() error {
	if err := in.settle(); err != nil {
		return err
	}
	q := in.subscription.transport.queues
	q.mu.Lock()
	in.subscription.unsettled[in.message.level].Add(-1)
	q.giveBack(in.message)
	q.wake()
	q.mu.Unlock()
	return nil
}

func (in *incoming) settle() error {
	if in.state.CompareAndSwap(stateOpen, stateSettled) {
		return nil
	}
	if in.state.Load() == stateStale {
		return delivery.ErrStale
	}
	return delivery.ErrSettled
}
