package breaker

import "time"

// ForceOpen has the breaker refuse every call because an operator wants it so: for
// d, or with 0 until Release. Then the breaker is half-open, so that probes find out
// how the dependency is. Another force replaces this one. A negative d is over
// already, and changes nothing.
//
// Permits that are out count no more, as after any change.
func (b *Breaker) ForceOpen(d time.Duration) { b.force(Open, d) }

// ForceClosed has the breaker allow every call because an operator wants it so: for
// d, or with 0 until Release. Outcomes aren't counted meanwhile. Then the breaker is
// closed, with nothing remembered: permits from before the force and under it do not
// count. Another force replaces this one. A negative d is over already, and changes
// nothing.
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

// force makes state the one that an operator wants.
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

// Trip opens the breaker for d, as its own outcomes would, because other code, such
// as another instance or a health check, knows that the dependency fails. An open
// breaker is open for d from now, whatever was left before. After d, or after a few
// nanoseconds if d is 0 or less, the breaker is half-open. Under a force, Trip does
// nothing.
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

// Reset closes the breaker with nothing remembered, because other code knows that
// the dependency is back. A closed breaker keeps what it remembers. Under a force,
// Reset does nothing.
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

// HoldProbes keeps the breaker from letting probes through whenever it is half-open,
// because others probe, until it is called with false. Probes that are out are not
// affected, and their outcomes count.
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

// impose sets a state that the breaker's own outcomes have not led to. A new gate is
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
