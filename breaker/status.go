package breaker

import "time"

// Status is a Breaker at one moment.
type Status struct {
	// State is the state.
	State State `json:"state"`
	// Until is when the open or forced state ends by itself; zero if it doesn't.
	Until time.Time `json:"until,omitzero"`
	// Forced says that the state is an operator's (ForceOpen, ForceClosed).
	Forced bool `json:"forced,omitempty"`
	// Wanted says that calls have been refused, or wait, since the breaker was last
	// closed or, if that is later, since HoldProbes was last called with false.
	Wanted bool `json:"wanted,omitempty"`
	// Probing is how many probes of a half-open breaker are out.
	Probing int `json:"probing"`
}

// Status is how the breaker is at this moment. A Breaker that can't be used is Open
// without an end.
func (b *Breaker) Status() Status {
	if b.Err() != nil {
		return Status{State: Open}
	}
	b.mu.Lock()
	defer b.unlock()
	status := Status{State: b.current(), Until: b.until, Forced: b.forced, Wanted: b.wanted}
	if b.state == HalfOpen {
		counts := b.gate.Counts()
		status.Probing = int(counts.Requests - counts.TotalSuccesses)
	}
	return status
}
