package breaker

import (
	"fmt"
	"time"
)

// Outcome is what came of a call that a Breaker allowed.
type Outcome int

// The outcomes.
const (
	// Abandoned: the caller gave up, by a shutdown for instance, and nothing is
	// known of the dependency. Not counted while closed; a half-open breaker
	// opens again, as it has learned nothing. It is the zero value, and what
	// unknown values are taken for.
	Abandoned Outcome = iota
	// Success: the call worked.
	Success
	// Failure: the dependency failed.
	Failure
	// Answered: the dependency is there, but refused this request for the
	// caller's own fault. Not counted while closed, a success while half-open.
	Answered
)

// String is the lower-case name that logs and metrics use.
func (o Outcome) String() string {
	switch o {
	case Abandoned:
		return "abandoned"
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Answered:
		return "answered"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

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

// slot is what a Breaker knows of one permit that is out. Slots are used
// again, so that a permit costs no allocation of its own; the turn tells a
// permit of an earlier use. All but breaker is guarded by the breaker's mutex.
type slot struct {
	breaker    *Breaker
	turn       uint64
	generation uint64             // of the state that the permit was given in
	done       func(success bool) // gobreaker's, of a probe
	watchdog   *time.Timer        // of a probe
	next       *slot              // in the list of free ones
}
