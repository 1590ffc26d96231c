package breaker

import (
	"fmt"
	"time"
)

// Change is a Breaker's change of its state.
type Change struct {
	// Name is the breaker's name.
	Name string `json:"name,omitempty"`
	// Key is the breaker's key in its Set, empty outside of one.
	Key string `json:"key,omitempty"`
	// From and To are the states.
	From, To State
	// At is when it happened; observers may be called a little later.
	At time.Time `json:"at,omitzero"`
	// Cause is what made it change.
	Cause Cause `json:"cause"`
}

// Cause is what made a Breaker change its state.
type Cause int

// The causes.
const (
	// CauseOwn: outcomes of its calls, or time.
	CauseOwn Cause = iota
	// CauseTold: Trip or Reset, by which other code passes on what it knows.
	CauseTold
	// CauseForced: ForceOpen or ForceClosed. The end of a force that leads to
	// another state is CauseOwn, as time is.
	CauseForced
)

// MarshalText gives JSON the name that String returns.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

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
