package rabbitmq

import "slices"

// acks collects the acks of one AMQP channel, so that one frame acks many
// messages. It knows every delivery that the broker awaits an ack for. Those
// that are acked from the oldest one on, without a gap, need a single frame, an
// ack of the last one of them with the flag multiple. Behind a gap, the message
// that somebody is slow with, each needs a frame of its own, so they wait for
// the gap to close, but not for long.
//
// It is not safe for concurrent use.
type acks struct {
	wire settler
	// So many acks that wait are sent if there is no gap before them, and so many
	// are sent in any case.
	prefixLimit, singleLimit int

	open   []*receipt // what is not settled on the wire, by tag
	unsent int        // how many of them are acked
	nacked int        // how many of them were nacked, at most
	round  uint32     // flushes by time so far
}

// settler is what acks uses of an AMQP channel.
type settler interface {
	Ack(tag uint64, multiple bool) error
	Nack(tag uint64, multiple, requeue bool) error
}

// receipt is one delivery.
type receipt struct {
	tag   uint64
	state receiptState
	round uint32 // when it was acked
}

type receiptState uint8

const (
	inHand receiptState = iota
	acked               // not yet sent
	gone                // acked or nacked on the wire, or stale
)

func newAcks(wire settler, prefetch int) *acks {
	return &acks{wire: wire, prefixLimit: max(1, prefetch/4), singleLimit: max(1, prefetch/2)}
}

// delivered adds the newest delivery.
func (a *acks) delivered(r *receipt) { a.open = append(a.open, r) }

// ack takes an ack and sends what has become enough. r is in hand.
func (a *acks) ack(r *receipt) error {
	r.state, r.round = acked, a.round
	a.unsent++
	if a.unsent < a.prefixLimit {
		return nil
	}
	if err := a.sendPrefix(); err != nil {
		return err
	}
	if a.unsent >= a.singleLimit {
		return a.sendSingles(a.round + 1)
	}
	return nil
}

// nack gives a delivery back at once. r is in hand. Behind a gap, nothing else
// would drop what is given back again and again.
func (a *acks) nack(r *receipt) error {
	r.state = gone
	if a.nacked++; a.nacked >= a.singleLimit {
		a.nacked = 0
		a.open = slices.DeleteFunc(a.open, func(r *receipt) bool { return r.state == gone })
	}
	return a.wire.Nack(r.tag, false, true)
}

// tick sends what is acked without a gap, and behind one what waits since the
// tick before. It says whether anything is left to be sent.
func (a *acks) tick() (more bool, err error) {
	if err := a.sendPrefix(); err != nil {
		return false, err
	}
	if err := a.sendSingles(a.round); err != nil {
		return false, err
	}
	a.round++
	return a.unsent > 0, nil
}

// flush sends everything.
func (a *acks) flush() error {
	if err := a.sendPrefix(); err != nil {
		return err
	}
	return a.sendSingles(a.round + 1)
}

// sendPrefix acks all from the oldest to the last before the first in hand. What
// was nacked is not the broker's any more, and neither may be the tag of the
// frame.
func (a *acks) sendPrefix() error {
	var last uint64
	count, end := 0, 0
	for end < len(a.open) && a.open[end].state != inHand {
		if r := a.open[end]; r.state == acked {
			r.state = gone
			last = r.tag
			count++
		}
		end++
	}
	if end == 0 {
		return nil
	}
	rest := copy(a.open, a.open[end:])
	clear(a.open[rest:])
	a.open = a.open[:rest]
	a.unsent -= count
	if count == 0 {
		return nil
	}
	return a.wire.Ack(last, count > 1)
}

// sendSingles acks one by one what was acked before the given round.
func (a *acks) sendSingles(before uint32) error {
	if a.unsent == 0 {
		return nil
	}
	kept := a.open[:0]
	var fault error
	for _, r := range a.open {
		if r.state == acked && int32(r.round-before) < 0 && fault == nil {
			r.state = gone
			a.unsent--
			fault = a.wire.Ack(r.tag, false)
		}
		if r.state != gone {
			kept = append(kept, r)
		}
	}
	clear(a.open[len(kept):])
	a.open = kept
	return fault
}
