package memory

import (
	"sync"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// queues is what the transports made by New and Another share. The lock is held
// for pushing and popping pointers, never for copying bodies.
type queues struct {
	config  Config
	session string

	mu      sync.Mutex
	place   uint64 // that the last message got
	levels  [levels]queue
	ready   semaphore
	delayed semaphore
	due     messageHeap // delayed messages by their time
	timer   *time.Timer // fires when the first of due is ready
	timerAt time.Time   // when it fires; zero when it is stopped
	waiting []*subscription
	open    int // how many transports are not closed

	letters deadLetters
}

// queue holds the messages that are ready at one priority.
type queue struct {
	fresh    ringBuffer
	returned messageHeap // by place; all of them come before all of fresh
}

func newQueues(config Config) *queues {
	q := &queues{config: config, session: delivery.NewID(), ready: semaphore{limit: config.MaxMessages}, delayed: semaphore{limit: config.MaxMessages}}
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

// add puts a message at the end of its queue. Like the methods below, it is
// called under the lock.
func (q *queues) add(m *message) {
	q.place++
	m.place = q.place
	q.ready.held++
	q.levels[m.level].fresh.push(m)
}

// addSome adds the first of the messages, as many as there is room for, and
// returns how many it has dealt with. Messages without a level are left out.
func (q *queues) addSome(messages []message, room int, delayed bool) int {
	for i := range messages {
		m := &messages[i]
		switch {
		case m.level < 0:
			continue
		case room == 0:
			return i
		case delayed:
			q.delay(m)
		default:
			q.add(m)
		}
		room--
	}
	return len(messages)
}

// delay keeps a message until its time has come.
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

// take appends the messages that the subscription may have, higher priorities
// first.
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

// wake wakes one subscription that waits, if there is a message that it may
// have. If that one leaves a message, it wakes the next.
func (q *queues) wake() {
	for i, s := range q.waiting {
		if s.paused {
			continue
		}
		for level := range q.levels {
			if q.levels[level].count() > 0 && s.room(level) > 0 {
				last := len(q.waiting) - 1
				copy(q.waiting[i:], q.waiting[i+1:])
				q.waiting[last] = nil
				q.waiting = q.waiting[:last]
				s.waiting = false
				s.signal()
				return
			}
		}
	}
}

func (q *queues) startWaiting(s *subscription) {
	if !s.waiting {
		s.waiting = true
		q.waiting = append(q.waiting, s)
	}
}

func (q *queues) stopWaiting(s *subscription) {
	if !s.waiting {
		return
	}
	s.waiting = false
	for i, other := range q.waiting {
		if other == s {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			return
		}
	}
}

// releaseDue moves the messages that are due to the ends of their queues, and
// sets the timer for the others.
func (q *queues) releaseDue(now time.Time) {
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

// setTimer sets the timer to the time when the first delayed message is due.
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
		q.timer = time.AfterFunc(first.ready.Sub(now), q.onTimer)
	} else {
		q.timer.Reset(first.ready.Sub(now))
	}
}

func (q *queues) onTimer() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.timerAt = time.Time{}
	if q.open > 0 {
		q.releaseDue(time.Now())
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
