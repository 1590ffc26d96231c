package memory

import (
	"sync"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// queues are what transports made by New and Another share: the broker. The
// lock is held for pushing and popping pointers, never for copying bodies.
type queues struct {
	config  Config
	session string

	mu      sync.Mutex
	place   uint64 // the last one given
	levels  [levels]queue
	ready   gate
	delayed gate
	due     heap        // delayed messages by their time
	timer   *time.Timer // runs out when the first of due is ready
	timerAt time.Time   // when; zero when it does not run
	parked  []*subscription
	open    int // transports that are not closed

	letters deadLetters
}

// queue holds what is ready at one priority.
type queue struct {
	fresh    ring
	returned heap // by place: all of it goes before all of fresh
}

func newQueues(config Config) *queues {
	q := &queues{config: config, session: delivery.NewID(), ready: gate{limit: config.MaxMessages}, delayed: gate{limit: config.MaxMessages}}
	q.due.before = func(a, b *message) bool {
		if a.ready.Equal(b.ready) {
			return a.place < b.place
		}
		return a.ready.Before(b.ready)
	}
	for level := range q.levels {
		q.levels[level].returned.before = func(a, b *message) bool { return a.place < b.place }
	}
	return q
}

func (q *queue) count() int { return q.fresh.count + len(q.returned.items) }

func (q *queue) first() *message {
	if m := q.returned.first(); m != nil {
		return m
	}
	return q.fresh.first()
}

func (q *queue) pop() *message {
	if len(q.returned.items) > 0 {
		return q.returned.pop()
	}
	return q.fresh.pop()
}

// add puts a message at its queue's end. Like all that follows, it is called
// under the lock.
func (q *queues) add(m *message) {
	q.place++
	m.place = q.place
	q.ready.held++
	q.levels[m.level].fresh.push(m)
}

// delay puts a message aside until its time.
func (q *queues) delay(m *message) {
	q.place++
	m.place = q.place
	q.delayed.held++
	q.due.push(m)
}

// giveBack puts a received message back in its place.
func (q *queues) giveBack(m *message) {
	q.ready.held++
	q.levels[m.level].returned.push(m)
}

// take appends what the subscription may have to messages, the higher
// priorities first.
func (q *queues) take(s *subscription, messages []*message) []*message {
	if s.paused {
		return messages
	}
	before := len(messages)
	for level := range q.levels {
		queue := &q.levels[level]
		count := queue.count()
		if count == 0 {
			continue
		}
		n := min(count, s.room(level))
		for range n {
			messages = append(messages, queue.pop())
		}
		if n > 0 {
			s.unsettled[level].Add(int64(n))
		}
	}
	if taken := len(messages) - before; taken > 0 {
		q.ready.release(taken)
	}
	return messages
}

// wake wakes one subscription that waits and may have something that is ready.
// If that one leaves something, it wakes the next.
func (q *queues) wake() {
	for i, s := range q.parked {
		if s.paused {
			continue
		}
		for level := range q.levels {
			if q.levels[level].count() > 0 && s.room(level) > 0 {
				last := len(q.parked) - 1
				copy(q.parked[i:], q.parked[i+1:])
				q.parked[last] = nil
				q.parked = q.parked[:last]
				s.parked = false
				s.signal()
				return
			}
		}
	}
}

func (q *queues) park(s *subscription) {
	if !s.parked {
		s.parked = true
		q.parked = append(q.parked, s)
	}
}

func (q *queues) unpark(s *subscription) {
	if !s.parked {
		return
	}
	s.parked = false
	for i, other := range q.parked {
		if other == s {
			q.parked = append(q.parked[:i], q.parked[i+1:]...)
			return
		}
	}
}

// ripen moves what is due to the ends of its queues and sets the timer for what
// is not.
func (q *queues) ripen(now time.Time) {
	moved := 0
	for first := q.due.first(); first != nil && !first.ready.After(now); first = q.due.first() {
		q.add(q.due.pop())
		moved++
	}
	if moved > 0 {
		q.delayed.release(moved)
		q.wake()
	}
	q.setTimer(now)
}

// setTimer makes the one timer run out when the first delayed message is due.
func (q *queues) setTimer(now time.Time) {
	first := q.due.first()
	if first == nil || q.open == 0 {
		q.timerAt = time.Time{}
		if q.timer != nil {
			q.timer.Stop()
		}
		return
	}
	if first.ready.Equal(q.timerAt) {
		return
	}
	q.timerAt = first.ready
	if q.timer == nil {
		q.timer = time.AfterFunc(first.ready.Sub(now), q.timeIsUp)
	} else {
		q.timer.Reset(first.ready.Sub(now))
	}
}

func (q *queues) timeIsUp() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.timerAt = time.Time{}
	if q.open > 0 {
		q.ripen(time.Now())
	}
}

func (q *queues) depth(now time.Time) map[delivery.Priority]delivery.Depth {
	q.mu.Lock()
	defer q.mu.Unlock()
	depths := make(map[delivery.Priority]delivery.Depth, levels)
	for level := range q.levels {
		queue := &q.levels[level]
		depth := delivery.Depth{Messages: int64(queue.count())}
		if first := queue.first(); first != nil {
			depth.Oldest = max(0, now.Sub(first.ready))
		}
		depths[priorityOf(level)] = depth
	}
	return depths
}
