package breaker

import (
	"errors"
	"fmt"
	"time"
)

// What can go wrong, to be matched with errors.Is.
var (
	// ErrOpen: the breaker allows no call now. See OpenError.
	ErrOpen = errors.New("breaker: open")
	// ErrConfig: the breaker can't be used; the text names every fault.
	ErrConfig = errors.New("breaker: invalid config")
)

// OpenError says that a breaker allows no call now, and for how long. It matches
// ErrOpen.
type OpenError struct {
	// Name is the breaker's name.
	Name string
	// RetryIn is how long it is, if above 0, until the breaker lets probes through.
	// 0 means that it is half-open, and its probes are all out or held (HoldProbes);
	// with Forced it means that the breaker is open until Release. Wait waits for the
	// end of any of these.
	RetryIn time.Duration
	// Forced says that an operator wants the breaker open (ForceOpen).
	Forced bool
}

func (e *OpenError) Error() string {
	text := "breaker: open"
	if e.Name != "" {
		text = fmt.Sprintf("breaker: %q is open", e.Name)
	}
	if e.Forced {
		text += " by force"
	}
	switch {
	case e.RetryIn > 0:
		return text + ", retry in " + e.RetryIn.String()
	case e.Forced:
		return text + " until released"
	}
	return text + ", waiting for probes"
}

// Is makes errors.Is(e, ErrOpen) true.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }
