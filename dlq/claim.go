package dlq

import (
	"errors"
	"fmt"
	"time"
)

// Claim is the only right to requeue some entries, for a while.
type Claim struct {
	// Token identifies the claimant. Each call of Requeue, and each run of a
	// replay job, has a new one.
	Token string
	// Now is the time of the claim.
	Now time.Time
	// Lease is how long it lasts.
	Lease time.Duration
}

// Validate reports all faults at once, as ErrInvalid. Stores call it in Claim.
func (c *Claim) Validate() error {
	var faults []error
	if c.Token == "" {
		faults = append(faults, fmt.Errorf("%w: Claim.Token is empty", ErrInvalid))
	}
	if c.Lease <= 0 {
		faults = append(faults, fmt.Errorf("%w: Claim.Lease is %s, want more than 0", ErrInvalid, c.Lease))
	}
	return errors.Join(faults...)
}
