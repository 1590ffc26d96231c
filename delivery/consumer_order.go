package delivery

import (
	"sync"
	"time"
)

// HoldPolicy says what becomes of a message that fails, or is put off, and has held up
// its recipient for too long, or would: see ConsumerConfig.MaxHold.
type HoldPolicy int

// The policies.
const (
	// HoldDeadLetter makes it a dead letter, so that the order is kept.
	HoldDeadLetter HoldPolicy = iota
	// HoldPassBy lets the others go first: it is tried again later, out of order.
	HoldPassBy
)

// recipientOrder keeps the order of ordered mode: of each recipient one message is
// under way, in the queue or in a goroutine's hands, and the others stand in line
// behind it. Their number is bounded by what may be in hand. Without ordered mode
// every message may go.
type recipientOrder struct {
	ordered bool
	holds   *holds

	mu    sync.Mutex
	lines map[string]*recipientLine // of every recipient that has a message under way
}

// recipientLine is one recipient's messages that wait for the one under way.
type recipientLine struct {
	waiting [4]ring // by level
	held    *hold   // of the one under way, nil unless it is held
}

func newRecipientOrder(ordered bool, holds *holds) *recipientOrder {
	return &recipientOrder{ordered: ordered, holds: holds, lines: make(map[string]*recipientLine)}
}

// arrive takes messages in the order in which they came and returns those that
// may go. What can't be decoded has no recipient and need not wait.
func (o *recipientOrder) arrive(messages []*inflight) []*inflight {
	if !o.ordered {
		return messages
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	ready := messages[:0]
	for _, m := range messages {
		envelope, err := m.incoming.Envelope()
		if err != nil || envelope.Recipient == "" {
			ready = append(ready, m)
			continue
		}
		m.recipient = envelope.Recipient
		line := o.lines[m.recipient]
		if line == nil {
			o.lines[m.recipient] = &recipientLine{}
			ready = append(ready, m)
			continue
		}
		line.waiting[level(m.priority())].pushBack(m)
		if line.held != nil {
			o.holds.add(line.held, m)
		}
	}
	return ready
}

// hold holds a message for a while, with those that stand in line behind it.
func (o *recipientOrder) hold(m *inflight, d time.Duration) *hold {
	now := time.Now()
	if m.held.IsZero() {
		m.held = now
	}
	if now.Add(d).Sub(m.held) <= briefHold {
		return &hold{}
	}
	if m.recipient == "" {
		return o.holds.begin(m)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	held := []*inflight{m}
	line := o.lines[m.recipient]
	if line == nil { // the drain has begun
		return o.holds.begin(held...)
	}
	for l := range line.waiting {
		held = append(held, line.waiting[l].all()...)
	}
	line.held = o.holds.begin(held...)
	return line.held
}

// endHold ends what hold began.
func (o *recipientOrder) endHold(m *inflight, held *hold) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if line := o.lines[m.recipient]; line != nil {
		line.held = nil
	}
	o.holds.end(held)
}

// next takes the message under way out of its line, and returns the one that is
// next, or nil: the first of the highest priority.
func (o *recipientOrder) next(m *inflight) *inflight {
	recipient := m.recipient
	if recipient == "" {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	line := o.lines[recipient]
	if line == nil {
		return nil
	}
	m.recipient = ""
	for p := len(line.waiting) - 1; p >= 0; p-- {
		if line.waiting[p].len() > 0 {
			return line.waiting[p].popFront()
		}
	}
	delete(o.lines, recipient)
	return nil
}

// end empties the lines and returns the messages that stood in them.
func (o *recipientOrder) end() []*inflight {
	o.mu.Lock()
	defer o.mu.Unlock()
	var rest []*inflight
	for _, line := range o.lines {
		for p := range line.waiting {
			for line.waiting[p].len() > 0 {
				rest = append(rest, line.waiting[p].popFront())
			}
		}
	}
	clear(o.lines)
	return rest
}
