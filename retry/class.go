package retry

import "fmt"

// Class is the kind of a failure, which says what is worth doing about it.
type Class int

// The classes.
const (
	// ClassRecoverable is a failure that takes a while to pass: try again after a
	// delay. It is the zero value, and the class of an error that no rule knows.
	ClassRecoverable Class = iota
	// ClassTransient is a failure that passes in a moment: try again at once, a few
	// times.
	ClassTransient
	// ClassPermanent is a failure that would be the same next time: don't try again.
	ClassPermanent
	// ClassLater is no failure: it is not the time for it. Try again later, and don't
	// count this.
	ClassLater
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
	case ClassLater:
		return "later"
	}
	return fmt.Sprintf("Class(%d)", int(c))
}
