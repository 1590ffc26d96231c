package retry

import "fmt"

// Class is the kind of a failure: what is worth doing about it.
type Class int

// The classes.
const (
	// ClassRecoverable takes a while: try again after a delay. It is the zero
	// value, and what an error is that no rule knows.
	ClassRecoverable Class = iota
	// ClassTransient is gone in a moment: try again at once, a few times.
	ClassTransient
	// ClassPermanent will be the same next time: don't try again.
	ClassPermanent
)

// String is the lower-case name that logs and metrics use.
func (c Class) String() string {
	switch c {
	case ClassRecoverable:
		return "recoverable"
	case ClassTransient:
		return "transient"
	case ClassPermanent:
		return "permanent"
	}
	return fmt.Sprintf("Class(%d)", int(c))
}
