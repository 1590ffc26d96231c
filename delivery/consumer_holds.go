package delivery

import (
	"container/list"
	"sync"
	"time"
)

// briefHold is for how long a message may be held, with others in line behind it,
// whatever room that takes: the room is free again before it matters.
const briefHold = 200 * time.Millisecond

// holds bounds how much is held in hand, so that what waits for a key, a breaker or
// a next attempt does not take the room of what could run: of each queue of the
// transport at most half of what may be in hand. Beyond that the oldest hold has to
// end. Brief holds do not count.
type holds struct {
	prefetch int // of a queue that does not tell its own

	mu     sync.Mutex
	counts map[string]int // held, by queue
	oldest list.List      // of *hold
}

// hold is a message that is held, with those that stand in line behind it.
type hold struct {
	aside   chan struct{} // closed when it has to step aside; nil for a brief hold
	weight  map[string]int
	element *list.Element // nil when it has ended
}

func newHolds(prefetch int) *holds {
	return &holds{prefetch: prefetch, counts: make(map[string]int)}
}

// queueOf is the queue of the transport that m came from, and how many of it may be
// in hand.
func (h *holds) queueOf(m *inflight) (name string, prefetch int) {
	if queued, ok := m.incoming.(QueueTeller); ok {
		return queued.Queue()
	}
	return m.priority().String(), h.prefetch
}

// begin holds messages, of which the first one waits and the others stand in line
// behind it.
func (h *holds) begin(messages ...*inflight) *hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := &hold{aside: make(chan struct{}), weight: make(map[string]int)}
	held.element = h.oldest.PushBack(held)
	for _, m := range messages {
		h.count(held, m)
	}
	return held
}

// add has one more message stand in line behind the one that is held.
func (h *holds) add(held *hold, m *inflight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count(held, m)
}

// end ends a hold. To end one that has ended changes nothing.
func (h *holds) end(held *hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(held)
}

func (h *holds) count(held *hold, m *inflight) {
	if held.element == nil {
		return // it has to step aside already
	}
	queue, prefetch := h.queueOf(m)
	held.weight[queue]++
	h.counts[queue]++
	for e := h.oldest.Front(); e != nil && h.counts[queue] > max(1, prefetch/2); {
		next := e.Next()
		if old := e.Value.(*hold); old.weight[queue] > 0 {
			h.remove(old)
			close(old.aside)
		}
		e = next
	}
}

func (h *holds) remove(held *hold) {
	if held.element == nil {
		return
	}
	h.oldest.Remove(held.element)
	held.element = nil
	for queue, n := range held.weight {
		if h.counts[queue] -= n; h.counts[queue] == 0 {
			delete(h.counts, queue)
		}
	}
}
