package breaker

import "time"

// ForceOpen refuses every call, by an operator's will: for d, or with 0 until
// Release. Then the breaker is half-open: probes find out whether the way is
// free. Another force replaces this one; a negative d is over already, and
// changes nothing.
//
// Permits that are out count no more, as after any change.
func (b *Breaker) ForceOpen(d time.Duration) { b.force(Open, d) }

// ForceClosed allows every call, by an operator's will: for d, or with 0 until
// Release. Outcomes aren't counted meanwhile. Then the breaker is closed, with
// nothing remembered: neither permits from before the force nor those given
// under it count. Another force replaces this one; a negative d is over
// already, and changes nothing.
func (b *Breaker) ForceClosed(d time.Duration) { b.force(Closed, d) }

// Release ends a force before its time: what was forced open becomes half-open
// within a few nanoseconds, what was forced closed is simply closed. Without a
// force it does nothing.
func (b *Breaker) Release() {
	if b.Err() != nil {
		return
	}
	b.mu.Lock()
	defer b.unlock()
	switch {
	case !b.forced:
	case b.state == Open:
		b.endIn(1)
	default:
		b.forget()
	}
}

// force makes state an operator's will.
func (b *Breaker) force(state State, d time.Duration) {
	if d < 0 || b.Err() != nil {
		return
	}
	b.mu.Lock()
	defer b.unlock()
	if b.current() != state {
		b.impose(state, CauseForced)
	}
	b.forced = true
	b.endIn(d)
}

// Trip opens the breaker for d, as if it had found out by itself, because
// another party has: another instance, or a health check. An open one is open
// for d from now, whatever was left before. After d, and after a few
// nanoseconds if d is 0 or less, it is half-open. A force is stronger: under
// one, Trip does nothing.
func (b *Breaker) Trip(d time.Duration) {
	if b.Err() != nil {
		return
	}
	b.mu.Lock()
	defer b.unlock()
	state := b.current()
	if b.forced {
		return
	}
	if state != Open {
		b.impose(Open, CauseTold)
	}
	b.endIn(max(d, 1))
}

// Reset closes the breaker with nothing remembered, because another party
// knows that the dependency is back. A closed one keeps what it remembers. A
// force is stronger: under one, Reset does nothing.
func (b *Breaker) Reset() {
	if b.Err() != nil {
		return
	}
	b.mu.Lock()
	defer b.unlock()
	if b.current() != Closed && !b.forced {
		b.impose(Closed, CauseTold)
	}
}

// HoldProbes keeps a half-open breaker from letting probes through, now or
// whenever it will be half-open, until HoldProbes is called with false: somebody
// else probes. Probes that are out are not affected, and their outcomes count.
func (b *Breaker) HoldProbes(hold bool) {
	if b.Err() != nil {
		return
	}
	b.mu.Lock()
	defer b.unlock()
	if b.held && !hold {
		b.wanted = false
		b.awake()
	}
	b.held = hold
}

// Status is how the breaker is at this moment. One that can't be used is Open
// without an end.
func (b *Breaker) Status() Status {
	if b.Err() != nil {
		return Status{State: Open}
	}
	b.mu.Lock()
	defer b.unlock()
	status := Status{State: b.current(), Until: b.until, Forced: b.forced, Wanted: b.wanted}
	if b.state == HalfOpen {
		counts := b.gate.Counts()
		status.Probing = int(counts.Requests - counts.TotalSuccesses)
	}
	return status
}

// impose makes another state of it than its own outcomes would. A new gate is
// closed, and opens at one failure. mu is held.
func (b *Breaker) impose(state State, cause Cause) {
	b.gate = b.newGate()
	if state == Open {
		b.imposing = true
		b.fail()
		b.imposing = false
	}
	b.become(state, cause)
}
