package dlq

import (
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Filter picks entries. An entry must match all fields that are set. The zero
// Filter picks everything.
type Filter struct {
	Reason      delivery.Reason
	Recipient   string
	Type        string
	Fingerprint string
	Source      string
	// Since and Until bound DeadAt: at or after Since, before Until.
	Since time.Time
	Until time.Time
}

// Match reports whether the filter picks entry.
func (f *Filter) Match(entry *Entry) bool {
	return (f.Reason == "" || f.Reason == entry.Reason) &&
		(f.Recipient == "" || f.Recipient == entry.Envelope.Recipient) &&
		(f.Type == "" || f.Type == entry.Envelope.Type) &&
		(f.Fingerprint == "" || f.Fingerprint == entry.Fingerprint) &&
		(f.Source == "" || f.Source == entry.Source) &&
		(f.Since.IsZero() || !entry.DeadAt.Before(f.Since)) &&
		(f.Until.IsZero() || entry.DeadAt.Before(f.Until))
}

// CheckFilter returns ErrQuery when no time can be within filter's bounds.
// Stores call it in Count.
func CheckFilter(filter *Filter) error {
	if !filter.Since.IsZero() && !filter.Until.IsZero() && !filter.Since.Before(filter.Until) {
		return fmt.Errorf("%w: Since is not before Until", ErrQuery)
	}
	return nil
}
