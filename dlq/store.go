package dlq

import (
	"context"
	"time"
)

// Store keeps entries. The suite dlqtest.TestStore is this contract as tests.
//
// Any number of goroutines may call all methods at once. So may any number of
// processes, where they share the store. No method retains what it is given or
// returns what the store keeps. None reads the clock: where time matters, it is
// an argument. Callers on several machines should have clocks that agree within
// a fraction of a lease.
//
// A method for several ids answers for each of them, in the order of ids. Its
// errors are nil when all went well. Otherwise there is one for each id, which
// is nil where it went well. A failure of the store itself is every id's error.
// No ids at all is no error, and nothing is done. An id that is given twice is
// as two calls. Times are kept to the microsecond. When ctx has ended, the
// error is ctx's, bare or wrapped.
type Store interface {
	// Put returns nil when all entries are durable. It replaces an entry that has
	// the same ID. A claim on the replaced entry goes on, so that nobody else can
	// claim it before the claim ends, but no longer entitles to Remove.
	//
	// After an error some of the entries may have been put, and putting them
	// again is safe. An entry without an ID is ErrInvalid, and a store that has
	// reached its bound returns ErrFull. In these two cases none was put.
	Put(ctx context.Context, entries ...Entry) error

	// Get returns the entries of ids, in that order. An id without an entry gets
	// the zero Entry and ErrNotFound.
	Get(ctx context.Context, ids ...string) ([]Entry, []error)

	// List returns the entries that query picks, in its order, from its cursor
	// on. It must use Query.Scan, and Scan.Cursor for the next page. An entry
	// whose position stays the same while pages are read is returned exactly
	// once, whatever is put or deleted meanwhile. An entry that is replaced moves
	// to its new position.
	List(ctx context.Context, query Query) (Page, error)

	// Count returns how many entries filter picks. It returns CheckFilter's error
	// if there is one. It should read no bodies. A Manager with metrics calls it
	// with the zero Filter at the start and after changes, but no more than every
	// few seconds.
	Count(ctx context.Context, filter Filter) (int, error)

	// Stats counts the entries. It returns at most top fingerprints, and
	// CheckTop's error if there is one.
	Stats(ctx context.Context, top int) (Stats, error)

	// Claim gives claim.Token the only right to requeue entries until
	// claim.Now + claim.Lease, and returns the entries as Get does. It is
	// ErrClaimed when another token has that right until after claim.Now. A token
	// that has the right already renews it. The error of Claim.Validate is every
	// id's.
	Claim(ctx context.Context, claim Claim, ids ...string) ([]Entry, []error)

	// Release ends the claims of token. It is ErrClaimLost where token has none.
	Release(ctx context.Context, token string, ids ...string) []error

	// Remove deletes entries that token has claimed. The lease may have ended, as
	// long as nobody else has claimed the entry since. It is ErrClaimLost where
	// token has no claim, and ErrReplaced where the entry was put again since it
	// was claimed. What is not removed stays as it is, claimed or not.
	Remove(ctx context.Context, token string, ids ...string) []error

	// Delete deletes entries. It is ErrClaimed for those whose claim ends after
	// now, which stay.
	Delete(ctx context.Context, now time.Time, ids ...string) []error

	// Purge deletes all entries whose DeadAt is before the time given, except
	// for those whose claim ends after now. It returns how many it deleted, also
	// with an error. It deletes in batches, so that others need not wait long, and
	// ends with ctx.
	Purge(ctx context.Context, before, now time.Time) (int, error)
}
