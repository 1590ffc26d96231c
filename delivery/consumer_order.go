package delivery

import "sync"

// HoldPolicy says what becomes of a failing message that has held up its
// recipient for too long, see ConsumerConfig.MaxHold.
type HoldPolicy int

// The policies.
const (
	// HoldDeadLetter makes it a dead letter, so that the order is kept.
	HoldDeadLetter HoldPolicy = iota
	// HoldPassBy lets the others go first: it is tried again later, out of order.
	HoldPassBy
)

// lines keep the order of ordered mode: of each recipient one job is under way,
// in the backlog or in a worker's or a wait's hands, and the others stand in
// line behind it. Their number is bounded by what may be in hand.
type lines struct {
	limit int // so many behind a job are a crowd

	mu          sync.Mutex
	byRecipient map[string]*line
}

// line is one recipient's jobs that wait for the one under way.
type line struct {
	waiting [4]queue // by level
	count   int
	crowded chan struct{} // closed when count reaches the limit; nil while nobody asks
}

func newLines(limit int) *lines {
	return &lines{limit: limit, byRecipient: make(map[string]*line)}
}

// arrive takes jobs in the order in which they came and returns those that may
// go. What can't be decoded has no recipient and need not wait.
func (l *lines) arrive(jobs []*job) []*job {
	l.mu.Lock()
	defer l.mu.Unlock()
	ready := jobs[:0]
	for _, j := range jobs {
		envelope, err := j.incoming.Envelope()
		if err != nil || envelope.Recipient == "" {
			ready = append(ready, j)
			continue
		}
		j.recipient = envelope.Recipient
		if before := l.byRecipient[j.recipient]; before != nil {
			before.waiting[level(j.incoming.Priority())].pushBack(j)
			if before.count++; before.count >= l.limit && before.crowded != nil {
				close(before.crowded)
				before.crowded = nil
			}
			continue
		}
		l.byRecipient[j.recipient] = &line{}
		ready = append(ready, j)
	}
	return ready
}

// crowd gives a channel that closes when too many stand in line behind j.
func (l *lines) crowd(j *job) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.byRecipient[j.recipient]
	if line == nil {
		return nil // the drain has begun
	}
	if line.crowded == nil {
		line.crowded = make(chan struct{})
	}
	crowded := line.crowded
	if line.count >= l.limit {
		close(crowded)
		line.crowded = nil
	}
	return crowded
}

// depart takes the job under way out of its line, and returns the next one, or
// nil: the first of the highest priority.
func (l *lines) depart(j *job) *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	recipient := j.recipient
	line := l.byRecipient[recipient]
	if recipient == "" || line == nil {
		return nil
	}
	j.recipient = ""
	for p := len(line.waiting) - 1; p >= 0; p-- {
		if line.waiting[p].len() > 0 {
			line.count--
			return line.waiting[p].popFront()
		}
	}
	delete(l.byRecipient, recipient)
	return nil
}

// end empties the lines and returns who stood in them.
func (l *lines) end() []*job {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rest []*job
	for _, line := range l.byRecipient {
		for p := range line.waiting {
			for line.waiting[p].len() > 0 {
				rest = append(rest, line.waiting[p].popFront())
			}
		}
	}
	clear(l.byRecipient)
	return rest
}
