package rabbitmq

import "slices"

// acks collects the acks of one AMQP channel, so that one frame acks many
// messages. It knows every delivery that the broker awaits an ack for.
//
// Those acked from the oldest on, without a gap, go in a single frame: an ack of
// the last of them, with the flag multiple. A gap is a message that its handler is
// slow with. Each message after it needs a frame of its own. So their acks wait
// for the gap to close, but not for long.
//
// It is not safe for concurrent use.
type acks struct {
	channel settler
	// prefixLimit is how many acks that wait cause those without a gap to be sent,
	// and singleLimit how many cause all to be sent.
	prefixLimit, singleLimit int

	open   []*receipt // not settled on the channel, by tag
	unsent int        // how many of open are acked
	nacked int        // how many of open were nacked, at most
	round  uint32     // how many ticks there were
}

// settler is what acks uses of an AMQP channel.
type settler interface {
	Ack(tag uint64, multiple bool) error
	Nack(tag uint64, multiple, requeue bool) error
}

// receipt is what acks knows of one delivery.
type receipt struct {
	tag   uint64
	state receiptState
	round uint32 // in which it was acked
}

type receiptState uint8

const (
	inHand  receiptState = iota
	acked                // the ack is not yet sent
	settled              // acked or nacked on the channel, or stale
)

func newAcks(channel settler, prefetch int) *acks {
	return &acks{channel: channel, prefixLimit: max(1, prefetch/4), singleLimit: max(1, prefetch/2)}
}

// add adds the newest delivery.
func (a *acks) add(r *receipt) { a.open = append(a.open, r) }

// ack acks r, which is in hand. It sends acks when there are enough of them.
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

// nack nacks r, which is in hand, at once. Now and then it forgets those nacked
// before: behind a gap nothing else does, and messages may be nacked again and
// again.
func (a *acks) nack(r *receipt) error {
	r.state = settled
	if a.nacked++; a.nacked >= a.singleLimit {
		a.nacked = 0
		a.open = slices.DeleteFunc(a.open, func(r *receipt) bool { return r.state == settled })
	}
	return a.channel.Nack(r.tag, false, true)
}

// tick sends what is acked without a gap, and what is acked behind one since
// before the last tick. It says whether anything is left to be sent.
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

// sendPrefix sends the acks of all before the first in hand. The frame's tag is
// the last acked one, not a nacked one: the broker knows that no longer, and would
// close the channel.
func (a *acks) sendPrefix() error {
	var last uint64
	count, end := 0, 0
	for end < len(a.open) && a.open[end].state != inHand {
		if r := a.open[end]; r.state == acked {
			r.state = settled
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
	return a.channel.Ack(last, count > 1)
}

// sendSingles sends one by one the acks of rounds before the given one.
func (a *acks) sendSingles(before uint32) error {
	if a.unsent == 0 {
		return nil
	}
	kept := a.open[:0]
	var failure error
	for _, r := range a.open {
		if r.state == acked && int32(r.round-before) < 0 && failure == nil {
			r.state = settled
			a.unsent--
			failure = a.channel.Ack(r.tag, false)
		}
		if r.state != settled {
			kept = append(kept, r)
		}
	}
	clear(a.open[len(kept):])
	a.open = kept
	return failure
}
