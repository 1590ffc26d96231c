package dlq

import (
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// MaxTop bounds how many fingerprints Stats counts.
const MaxTop = 1000

// Stats counts the entries of a store.
type Stats struct {
	// Total is how many entries there are.
	Total int `json:"total"`
	// Oldest is the earliest DeadAt. It is zero when there is no entry.
	Oldest time.Time `json:"oldest,omitzero"`
	// ByReason and ByType count entries. A message without a type counts as "".
	ByReason map[delivery.Reason]int `json:"by_reason"`
	ByType   map[string]int          `json:"by_type"`
	// Fingerprints are the most frequent ones, most frequent first. Equally
	// frequent ones are in the order of the fingerprint.
	Fingerprints []FingerprintCount `json:"fingerprints"`
}

// FingerprintCount counts entries that failed in the same way.
type FingerprintCount struct {
	Fingerprint string `json:"fingerprint"`
	Count       int    `json:"count"`
	// Example is the Error of one of these entries.
	Example string `json:"example"`
}

// CheckTop returns ErrQuery when top is out of range. Stores call it in Stats.
func CheckTop(top int) error {
	if top < 0 || top > MaxTop {
		return fmt.Errorf("%w: top is %d, want 0 to %d", ErrQuery, top, MaxTop)
	}
	return nil
}
