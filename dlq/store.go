package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Store keeps entries. The suite dlqtest.TestStore is this contract as tests.
//
// All methods may be called by any number of goroutines, and where the store is
// shared, processes at once. None retains what it is given or returns what it
// keeps. None reads the clock: where time matters it is an argument, and
// callers on several machines should have clocks that agree within a fraction
// of a lease.
//
// A method for several ids answers for each of them in the order of ids: its
// errors are nil when all went well, or else one for each id, nil where it went
// well. A failure of the store itself is every id's error. Empty ids are no
// error and do nothing. An id that is given twice is as two calls. Times are
// kept to the microsecond. A ctx that has ended is its error, bare or wrapped.
type Store interface {
	// Put returns nil when all entries are durable. An entry with the ID of one
	// that is there replaces it. A claim on the replaced entry goes on, so that
	// nobody else can claim it before the claim ends, but it no longer entitles
	// to Remove. After an error some of the entries may have been put; putting
	// them again is safe. An entry without an ID is ErrInvalid, and a store with a
	// bound that is reached returns ErrFull; then none was put.
	Put(ctx context.Context, entries ...Entry) error

	// Get returns the entries of ids, in that order, with the zero Entry and
	// ErrNotFound for what is not there.
	Get(ctx context.Context, ids ...string) ([]Entry, []error)

	// List returns the entries that query picks, in its order, from its cursor
	// on. It must use Query.Scan, and Scan.Cursor for the next page. An entry
	// that stays where it is while pages are read is seen exactly once, whatever
	// is put or deleted meanwhile; one that is replaced moves to its new place.
	List(ctx context.Context, query Query) (Page, error)

	// Count returns how many entries filter picks. A filter that CheckFilter
	// rejects is its error. It should read no bodies; for the zero Filter it is
	// called after every change.
	Count(ctx context.Context, filter Filter) (int, error)

	// Stats counts the entries, with at most top fingerprints; top is from 0
	// to MaxTop, anything else is ErrQuery.
	Stats(ctx context.Context, top int) (Stats, error)

	// Claim gives claim.Token the only right to requeue entries until
	// claim.Now + claim.Lease, and returns them as Get does. ErrClaimed means
	// that another token has that right and its end is after claim.Now. Claiming
	// with the token that has the right already renews it. A claim that
	// Claim.Validate rejects is every id's error.
	Claim(ctx context.Context, claim Claim, ids ...string) ([]Entry, []error)

	// Release ends claims of token: ErrClaimLost where it has none.
	Release(ctx context.Context, token string, ids ...string) []error

	// Remove deletes entries that token has claimed, also after the lease as
	// long as nobody else claimed them: ErrClaimLost where it has no claim,
	// ErrReplaced where the entry was put again since it was claimed. What is
	// not removed stays as it is, claim included.
	Remove(ctx context.Context, token string, ids ...string) []error

	// Delete deletes entries, except for those whose claim ends after now:
	// ErrClaimed.
	Delete(ctx context.Context, now time.Time, ids ...string) []error

	// Purge deletes all entries with a DeadAt before the one given, except for
	// those whose claim ends after now, and returns how many.
	Purge(ctx context.Context, before, now time.Time) (int, error)
}

// Claim is the right to requeue entries, for a while.
type Claim struct {
	// Token names who claims; a new one for each call of Requeue.
	Token string
	// Now is the time of the claim.
	Now time.Time
	// Lease is how long it lasts.
	Lease time.Duration
}

// Validate reports all faults as ErrInvalid.
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

// MaxTop bounds how many fingerprints Stats has.
const MaxTop = 1000

// Stats counts what is kept.
type Stats struct {
	// Total is how many entries there are.
	Total int `json:"total"`
	// Oldest is the earliest DeadAt, zero when there is no entry.
	Oldest time.Time `json:"oldest,omitzero"`
	// ByReason and ByType count entries; a message without a type counts as "".
	ByReason map[delivery.Reason]int `json:"by_reason"`
	ByType   map[string]int          `json:"by_type"`
	// Fingerprints are the most frequent ones, most frequent first, and by
	// fingerprint among equals.
	Fingerprints []FingerprintCount `json:"fingerprints"`
}

// FingerprintCount is a group of entries that failed in the same way.
type FingerprintCount struct {
	Fingerprint string `json:"fingerprint"`
	Count       int    `json:"count"`
	// Example is the error's text of one of them.
	Example string `json:"example"`
}

// CheckTop returns ErrQuery when top is out of range.
func CheckTop(top int) error {
	if top < 0 || top > MaxTop {
		return fmt.Errorf("%w: top is %d, want 0 to %d", ErrQuery, top, MaxTop)
	}
	return nil
}
