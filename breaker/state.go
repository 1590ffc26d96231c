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
}
