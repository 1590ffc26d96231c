package delivery

import "sync"

// gate is a reason for which a backlog hands out nothing.
type gate uint8

const (
	gatePaused  gate = 1 << iota // Consumer.Pause
	gateBreaker                  // the consumer's breaker is open
	gateStore                    // the idempotency store is down
)

// backlog holds the jobs in hand that no worker has yet, by priority, and hands
// them out: the highest priority first, but a job that waits is passed over at
// most limit times in a row. Its size is bounded by what the subscription may
// have unsettled.
//
// Some jobs leave it before their turn, for as long as it takes to ask the
// idempotency store for their keys (see ahead.go). Those that come back with an
// answer go before the others of their level.
type backlog struct {
	limit int

	mu       sync.Mutex
	ready    sync.Cond
	levels   [4]queue // lowest priority first
	answered [4]queue // those with an answer
	ahead    int      // how many are being asked for, or wait with an answer
	passed   [4]int   // how often each waiting level was passed over
	gates    gate
	ended    bool
	// changed is closed and replaced when gates or ended change.
	changed chan struct{}
}

func newBacklog(limit int) *backlog {
	b := &backlog{limit: limit, changed: make(chan struct{})}
	b.ready.L = &b.mu
	return b
}

func level(p Priority) int {
	return int(min(max(p, Low), Urgent) - Low)
}

// push adds jobs in order. It returns false when the backlog has ended, and
// then leaves the jobs to the caller.
func (b *backlog) push(jobs ...*job) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	for _, j := range jobs {
		b.levels[level(j.incoming.Priority())].pushBack(j)
	}
	b.wake()
	return true
}

// putBack returns a job that pop gave, as the first of its level.
func (b *backlog) putBack(j *job) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	b.levels[level(j.incoming.Priority())].pushFront(j)
	b.wake()
	return true
}

// takeAhead takes jobs whose turn comes soon out of the backlog, to be asked for:
// as many as let limit be ahead, but none while more than half of that still are,
// so that they go in groups. Each has to come back by putBack.
func (b *backlog) takeAhead(limit int) (jobs []*job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gates != 0 || b.ahead > limit/2 {
		return jobs
	}
	for l := len(b.levels) - 1; l >= 0; l-- {
		for b.levels[l].len() > 0 && b.ahead < limit {
			jobs = append(jobs, b.levels[l].popFront())
			b.ahead++
		}
	}
	return jobs
}

// comeBack is putBack for a job that takeAhead gave.
func (b *backlog) comeBack(j *job) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	if j.asked {
		b.answered[level(j.incoming.Priority())].pushBack(j)
	} else {
		b.ahead--
		b.levels[level(j.incoming.Priority())].pushFront(j)
	}
	b.wake()
	return true
}

// wake wakes one worker, which in pop wakes the next if there is work for it:
// where handlers are quick, few workers do it all, and waking the others would
// cost more than the work.
func (b *backlog) wake() {
	if b.work() {
		b.ready.Signal()
	}
}

// pop blocks until a job may run. It returns nil when the backlog has ended.
//
// While the jobs are held up it gives those that hold a claim, with run false:
// the caller has to let go of the claim and put the job back, because others
// may have a copy of the message and need not wait for this consumer.
func (b *backlog) pop() (j *job, run bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.ended {
		if b.work() {
			if b.gates == 0 {
				j, run = b.take(b.pick()), true
			} else {
				j = b.takeAnswered()
			}
			b.wake()
			return j, run
		}
		b.ready.Wait()
	}
	return nil, false
}

// work says whether there is a job to give. A store that is down can't be told
// to let go of a claim.
func (b *backlog) work() bool {
	for l := range b.levels {
		if b.gates == 0 && b.waiting(l) || b.gates&^gateStore != 0 && b.answered[l].len() > 0 {
			return true
		}
	}
	return false
}

// waiting says whether a job waits at a level.
func (b *backlog) waiting(l int) bool { return b.levels[l].len()+b.answered[l].len() > 0 }

// take takes the first job of a level where one waits.
func (b *backlog) take(l int) *job {
	if b.answered[l].len() > 0 {
		b.ahead--
		return b.answered[l].popFront()
	}
	return b.levels[l].popFront()
}

func (b *backlog) takeAnswered() *job {
	for l := range b.answered {
		if b.answered[l].len() > 0 {
			return b.take(l)
		}
	}
	return nil
}

// pick chooses the level to serve, of those where a job waits, and counts the
// levels passed over.
func (b *backlog) pick() int {
	chosen := -1
	for l := len(b.levels) - 1; l >= 0; l-- {
		if !b.waiting(l) {
			b.passed[l] = 0
			continue
		}
		if chosen < 0 || b.passed[l] >= b.limit {
			chosen = l // of several that starve, the lowest
		}
	}
	for l := range b.levels {
		switch {
		case l == chosen:
			b.passed[l] = 0
		case l < chosen && b.waiting(l):
			b.passed[l]++
		}
	}
	return chosen
}

// shut closes a gate, open opens it. Jobs flow while no gate is closed.
func (b *backlog) shut(g gate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gates&g == 0 {
		b.gates |= g
		b.announce()
		b.wake()
	}
}

func (b *backlog) open(g gate) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gates&g != 0 {
		b.gates &^= g
		b.announce()
		b.ready.Broadcast()
	}
}

// state tells whether jobs flow, and gives a channel that closes when that, or
// anything else about the gates, changes.
func (b *backlog) state() (flowing bool, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gates == 0, b.changed
}

// end makes every pop return nil and gives what was waiting.
func (b *backlog) end() []*job {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.announce()
	b.ready.Broadcast()
	var rest []*job
	for l := len(b.levels) - 1; l >= 0; l-- {
		for b.waiting(l) {
			rest = append(rest, b.take(l))
		}
	}
	return rest
}

func (b *backlog) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// queue is a ring of jobs that grows as needed.
type queue struct {
	jobs  []*job // its length is a power of two
	first int
	count int
}

func (q *queue) len() int { return q.count }

func (q *queue) pushBack(j *job) {
	q.grow()
	q.jobs[(q.first+q.count)&(len(q.jobs)-1)] = j
	q.count++
}

func (q *queue) pushFront(j *job) {
	q.grow()
	q.first = (q.first - 1) & (len(q.jobs) - 1)
	q.jobs[q.first] = j
	q.count++
}

func (q *queue) popFront() *job {
	j := q.jobs[q.first]
	q.jobs[q.first] = nil
	q.first = (q.first + 1) & (len(q.jobs) - 1)
	q.count--
	return j
}

func (q *queue) grow() {
	if q.count < len(q.jobs) {
		return
	}
	jobs := make([]*job, max(16, 2*len(q.jobs)))
	for i := range q.count {
		jobs[i] = q.jobs[(q.first+i)&(len(q.jobs)-1)]
	}
	q.jobs, q.first = jobs, 0
}
