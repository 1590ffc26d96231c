package breaker

import (
	"fmt"

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

// MarshalText gives JSON the name that String returns.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

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
