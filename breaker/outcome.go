package breaker

import "fmt"

// Outcome is what came of a call that a Breaker allowed.
type Outcome int

// The outcomes.
const (
	// Abandoned: the caller gave up, because of a shutdown for instance, and nothing
	// is known of the dependency. It is not counted while closed; a half-open breaker
	// opens again, as it has learned nothing. It is the zero value, and other values
	// than these count as it.
	Abandoned Outcome = iota
	// Success: the call worked.
	Success
	// Failure: the dependency failed.
	Failure
	// Answered: the dependency is there, but refused this request because of a fault
	// of the request's own. It is not counted while closed, and a success while
	// half-open.
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
