package delivery

import "sync"

// queue holds the messages in hand that no worker has yet, by priority, and hands
// them out: the highest priority first, but one that waits is passed over at most
// limit times in a row. Its size is bounded by what the subscription may have
// unsettled.
type queue struct {
	limit    int
	suspects *suspects // get in line as they are handed out

	mu     sync.Mutex
	ready  sync.Cond
	levels [4]ring // lowest priority first
	passed [4]int  // how often each waiting level was passed over
	held   bool    // nothing is handed out
	ended  bool
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit, suspects: &suspects{}}
	q.ready.L = &q.mu
	return q
}

func level(p Priority) int {
	return int(min(max(p, Low), Urgent) - Low)
}

// push adds messages in order. It returns false when the queue has ended, and
// then leaves them to the caller.
func (q *queue) push(messages ...*inflight) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	for _, m := range messages {
		q.levels[level(m.priority())].pushBack(m)
	}
	q.wake()
	return true
}

// putBack returns a message that pop gave, as the first of its level.
func (q *queue) putBack(m *inflight) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	q.levels[level(m.priority())].pushFront(m)
	q.wake()
	return true
}

// pop blocks until a message may run. It returns nil when the queue has ended.
func (q *queue) pop() *inflight {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.ended {
		if q.work() {
			m := q.levels[q.pick()].popFront()
			if m.suspected {
				q.suspects.enter(m)
			}
			q.wake()
			return m
		}
		q.ready.Wait()
	}
	return nil
}

// wake wakes one worker, which in pop wakes the next if there is work for it:
// where handlers are quick, few workers do it all, and waking the others would
// cost more than the work.
func (q *queue) wake() {
	if q.work() {
		q.ready.Signal()
	}
}

// work says whether there is a message to give.
func (q *queue) work() bool {
	if q.held {
		return false
	}
	for l := range q.levels {
		if q.levels[l].len() > 0 {
			return true
		}
	}
	return false
}

// pick chooses the level to serve, of those where a message waits, and counts the
// levels passed over.
func (q *queue) pick() int {
	chosen := -1
	for l := len(q.levels) - 1; l >= 0; l-- {
		if q.levels[l].len() == 0 {
			q.passed[l] = 0
			continue
		}
		if chosen < 0 || q.passed[l] >= q.limit {
			chosen = l // of several that starve, the lowest
		}
	}
	for l := range q.levels {
		switch {
		case l == chosen:
			q.passed[l] = 0
		case l < chosen && q.levels[l].len() > 0:
			q.passed[l]++
		}
	}
	return chosen
}

// hold keeps messages from being handed out, or lets them go again.
func (q *queue) hold(held bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = held
	q.ready.Broadcast()
}

// end makes every pop return nil and gives what was waiting.
func (q *queue) end() []*inflight {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.ready.Broadcast()
	var rest []*inflight
	for l := len(q.levels) - 1; l >= 0; l-- {
		for q.levels[l].len() > 0 {
			rest = append(rest, q.levels[l].popFront())
		}
	}
	return rest
}

// ring is a queue of one level, which grows as needed.
type ring struct {
	messages []*inflight // its length is a power of two
	first    int
	count    int
}

func (r *ring) len() int { return r.count }

func (r *ring) pushBack(m *inflight) {
	r.grow()
	r.messages[(r.first+r.count)&(len(r.messages)-1)] = m
	r.count++
}

func (r *ring) pushFront(m *inflight) {
	r.grow()
	r.first = (r.first - 1) & (len(r.messages) - 1)
	r.messages[r.first] = m
	r.count++
}

func (r *ring) popFront() *inflight {
	m := r.messages[r.first]
	r.messages[r.first] = nil
	r.first = (r.first + 1) & (len(r.messages) - 1)
	r.count--
	return m
}

// all lists what is in it, first to last.
func (r *ring) all() []*inflight {
	messages := make([]*inflight, r.count)
	for i := range messages {
		messages[i] = r.messages[(r.first+i)&(len(r.messages)-1)]
	}
	return messages
}

func (r *ring) grow() {
	if r.count < len(r.messages) {
		return
	}
	messages := make([]*inflight, max(16, 2*len(r.messages)))
	for i := range r.count {
		messages[i] = r.messages[(r.first+i)&(len(r.messages)-1)]
	}
	r.messages, r.first = messages, 0
}
