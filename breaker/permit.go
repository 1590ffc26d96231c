package breaker

import "time"

// Permit is the right to make one call. It is a small value; its copies are
// one permit.
type Permit struct {
	slot *slot
	turn uint64
}

// Done reports what came of the call. Only the first report of a permit
// counts, and none after the breaker has changed its state or while it is
// forced. Done of the zero Permit does nothing. It may be called by any
// goroutine.
func (p Permit) Done(outcome Outcome) {
	if p.slot != nil {
		p.slot.breaker.report(p, outcome)
	}
}

// slot is what a Breaker knows of one permit that is out. Slots are used again, so
// that a permit costs no allocation of its own; by turn a permit of an earlier use
// is known. The breaker's mutex guards all but breaker.
type slot struct {
	breaker    *Breaker
	turn       uint64
	generation uint64             // of the state that the permit was given in
	done       func(success bool) // gobreaker's, of a probe
	watchdog   *time.Timer        // of a probe
	next       *slot              // in the list of free ones
}
