package breaker

import (
	"fmt"
	"time"

	"github.com/sony/gobreaker"
)

// State is whether a Breaker allows calls.
type State int

// The states.
const (
	Closed   = State(gobreaker.StateClosed)   // every call
	HalfOpen = State(gobreaker.StateHalfOpen) // a few probes
	Open     = State(gobreaker.StateOpen)     // no call
)

// String is the lower-case name that logs and metrics use.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	case Open:
		return "open"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Change is a Breaker's going from one state to another.
type Change struct {
	// Name is the breaker's name.
	Name string
	// Key is the breaker's key in its Set, empty outside of one.
	Key string
	// From and To are the states.
	From, To State
	// At is when it happened; an observer may hear of it a little later.
	At time.Time
	// Cause is what made it change.
	Cause Cause
}

// Cause is what made a Breaker change its state.
type Cause int

// The causes.
const (
	// CauseOwn: outcomes of its calls, or time.
	CauseOwn Cause = iota
	// CauseTold: Trip or Reset, by which another party passes on what it knows.
	CauseTold
	// CauseForced: ForceOpen or ForceClosed. The end of a force that leads to
	// another state is CauseOwn, as time is.
	CauseForced
)

// String is the lower-case name that logs use.
func (c Cause) String() string {
	switch c {
	case CauseOwn:
		return "own"
	case CauseTold:
		return "told"
	case CauseForced:
		return "forced"
	}
	return fmt.Sprintf("Cause(%d)", int(c))
}

// Status is a Breaker at one moment.
type Status struct {
	// State is the state.
	State State
	// Until is when the open or forced state ends by itself; zero if it doesn't.
	Until time.Time
	// Forced says that the state is an operator's (ForceOpen, ForceClosed).
	Forced bool
	// Wanted says that calls have been refused, or wait, since the breaker was
	// last closed or, if that is later, since HoldProbes last let probes go.
	Wanted bool
	// Probing is how many probes of a half-open breaker are out.
	Probing int
}
