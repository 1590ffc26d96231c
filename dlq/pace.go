package dlq

import "time"

// groupsPerSecond is how often entries are sent under a cap, where it allows one
// entry or more at a time.
const groupsPerSecond = 10

// pace spreads what is sent over time. The zero pace has no bound.
type pace struct {
	rate float64 // entries per second
	next time.Time
}

// newPace goes on where another runner was, which may have had another clock: no
// group of at most limit waits longer than one.
func newPace(rate float64, limit int, next, now time.Time) pace {
	p := pace{rate: rate}
	if rate == 0 {
		return p
	}
	p.next = next
	if latest := now.Add(p.step(p.group(limit))); next.After(latest) {
		p.next = latest
	}
	return p
}

// step is how much time n entries take.
func (p *pace) step(n int) time.Duration {
	return time.Duration(float64(n) / p.rate * float64(time.Second))
}

// group is how many entries may be sent together, at most limit.
func (p *pace) group(limit int) int {
	if p.rate == 0 {
		return limit
	}
	return min(limit, max(1, int(p.rate/groupsPerSecond)))
}

// sent notes that n entries were sent at a time, and sets next, before which
// no more may be. Being late by less than half of what n entries take is made
// up for, so that the rate is that of the cap and not a little less; more than
// that is a pause, and lost.
func (p *pace) sent(n int, at time.Time) {
	if p.rate == 0 {
		return
	}
	step := p.step(n)
	if at.Sub(p.next) > step/2 {
		p.next = at
	}
	p.next = p.next.Add(step)
}
