package breaker

import (
	"fmt"
	"time"
)

// Change is a Breaker's change of its state.
type Change struct {
	// Name is the breaker's name.
	Name string
	// Key is the breaker's key in its Set, empty outside of one.
	Key string
	// From and To are the states.
	From, To State
	// At is when it happened; observers may be called a little later.
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
	// CauseTold: Trip or Reset, by which other code passes on what it knows.
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
