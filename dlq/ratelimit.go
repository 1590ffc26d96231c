package dlq

import "time"

// groupsPerSecond is how often a rate limit lets a group of entries be sent, if
// the rate allows groups of more than one entry.
const groupsPerSecond = 10

// rateLimit spreads the entries of a replay job over time. The zero rateLimit
// has no limit.
type rateLimit struct {
	rate float64   // entries per second
	next time.Time // when the next group may be sent
}

// newRateLimit returns the limit of a run that goes on after another one, which
// stored next. The other may have had another clock. So no group of up to
// maxGroup entries waits longer than the time that such a group takes.
func newRateLimit(rate float64, maxGroup int, next, now time.Time) rateLimit {
	l := rateLimit{rate: rate}
	if rate == 0 {
		return l
	}
	l.next = next
	if latest := now.Add(l.timeFor(l.groupSize(maxGroup))); next.After(latest) {
		l.next = latest
	}
	return l
}

// timeFor returns how much time n entries take.
func (l *rateLimit) timeFor(n int) time.Duration {
	return time.Duration(float64(n) / l.rate * float64(time.Second))
}

// groupSize returns how many entries may be sent together, at most limit.
func (l *rateLimit) groupSize(limit int) int {
	if l.rate == 0 {
		return limit
	}
	return min(limit, max(1, int(l.rate/groupsPerSecond)))
}

// sent moves next on by the time that n entries take, which were sent at the
// time given. A delay of up to half of that time is made up for, so that the
// rate is that of the limit and not a little less. A longer delay is lost.
func (l *rateLimit) sent(n int, at time.Time) {
	if l.rate == 0 {
		return
	}
	took := l.timeFor(n)
	if at.Sub(l.next) > took/2 {
		l.next = at
	}
	l.next = l.next.Add(took)
}
