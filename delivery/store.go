package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store keeps records, so that a message has a life that can be asked about, and
// so that when a process dies, another can go on with its messages. The suite
// deliverytest.TestStore is this contract as tests.
//
// Any number of queues may share a store. IDs are of the store, not of a queue.
//
// All methods may be called by any number of goroutines at once, and where the
// store is shared, by any number of processes. None retains what it is given or
// returns what it keeps. None reads the clock: time comes in arguments. Times are
// kept to the microsecond.
//
// A method for several records or IDs answers for each in the order given: its
// errors are nil when all went well, or else one for each, nil where it went
// well. A failure of the store itself, which matches ErrStoreDown, is the error
// of each. Some of them may have been carried out all the same then, and the call
// may be repeated: Save and Update allow it. A ctx that has ended is its error,
// bare or wrapped. No records or IDs are no error. An ID given twice is as two
// calls.
//
// Calls of single records from many goroutines should be as cheap together as
// one call of many.
type Store interface {
	// Save adds records, with the progress that they have. ErrExists says that a
	// record with the ID is there, which stays as it is, whatever its Queue.
	// ErrInvalid: the ID or the Queue is empty or the Status is none of the statuses.
	Save(ctx context.Context, records ...Record) []error

	// Update carries out each update as Record.Apply does, atomically, and returns
	// the progress after it, or the one that refused it. ErrNotFound says that
	// there is no record, with the zero Progress.
	Update(ctx context.Context, updates ...Update) ([]Progress, []error)

	// Get returns the records of ids, with the zero Record and ErrNotFound for
	// what is not there.
	Get(ctx context.Context, ids ...string) ([]Record, []error)

	// List returns the records that query picks, without their bodies, in its
	// order from its cursor on. It must use RecordQuery.Scan, and RecordScan.Cursor
	// for the next page. A record that is there while the pages are read is seen
	// exactly once, whatever is saved, changed or purged meanwhile.
	List(ctx context.Context, query RecordQuery) (RecordPage, error)

	// Claim takes up to claim.Limit records whose Queue is claim.Queue, whose Status
	// is claim.Status and whose DueAt is set and at or before claim.Now: those of the
	// highest Priority, and among them those with the earliest DueAt, which is the
	// order of the result, too. Before these it takes up to claim.DueFirst by DueAt
	// alone. It makes them claim.Token's: ClaimedBy is Token and DueAt is Now + Lease
	// from then on. Callers at the same time get different records. A claim that
	// Claim.Validate rejects is its error.
	Claim(ctx context.Context, claim Claim) ([]Record, error)

	// Renew sets DueAt to until for all records of the queue, pending or queued, that
	// token has claimed. A process calls it again and again for what waits in it, so
	// it should not cost more the more that is.
	Renew(ctx context.Context, queue, token string, until time.Time) error

	// NextDue returns the earliest DueAt of all records of the queue with one of the
	// statuses, zero when there is none.
	NextDue(ctx context.Context, queue string, statuses ...Status) (time.Time, error)

	// Stats counts the records of the queue. An empty queue means all queues.
	Stats(ctx context.Context, queue string) (RecordStats, error)

	// Purge deletes up to limit records of the queue whose Status is final or failed
	// and that were last changed before the time given, those first that were changed
	// first, and returns how many, also with an error. What somebody else is changing
	// may be left for a later call. A call must not keep others waiting for longer than
	// the deletion of about a thousand records takes. Without a queue it is ErrInvalid.
	Purge(ctx context.Context, queue string, before time.Time, limit int) (int, error)
}

// StoreWatcher is a Store that tells the process that uses it of what becomes due.
type StoreWatcher interface {
	// Watch calls due after each change by this process that made a record due
	// at a time, with the earliest such time. due must not block or call the
	// store. After stop has returned due is not called again.
	Watch(due func(at time.Time)) (stop func())
}

// RecordsOnly is store for a host that runs no RetryWorker on it. Give what it
// returns to the publishers and the consumers. A message is durable when the
// transport has confirmed it then, retries and messages with a NotBefore wait in
// the transport, and the store only records what has become of them.
// NewRetryWorker rejects it.
//
// The abilities of store are kept: it is a StoreWatcher and a Pinger where store
// is one. A wrapper of the host's own goes inside: around what RecordsOnly
// returns it would hide that. RecordsOnly of nil is nil.
func RecordsOnly(store Store) Store {
	if store == nil || !schedules(store) {
		return store
	}
	only := recordsOnly{store}
	watcher, watches := store.(StoreWatcher)
	pinger, pings := store.(Pinger)
	switch {
	case watches && pings:
		return struct {
			recordsOnly
			StoreWatcher
			Pinger
		}{only, watcher, pinger}
	case watches:
		return struct {
			recordsOnly
			StoreWatcher
		}{only, watcher}
	case pings:
		return struct {
			recordsOnly
			Pinger
		}{only, pinger}
	}
	return only
}

// recordsOnly is a Store without a RetryWorker.
type recordsOnly struct{ Store }

func (recordsOnly) withoutRetryWorker() {}

// Err is the store's own, for faultOf.
func (s recordsOnly) Err() error {
	if reporter, ok := s.Store.(FaultReporter); ok {
		return reporter.Err()
	}
	return nil
}

// schedules says whether what waits for its time waits in store, for a
// RetryWorker. It is false for a nil store.
func schedules(store Store) bool {
	_, without := store.(interface{ withoutRetryWorker() })
	return store != nil && !without
}

// Claim asks a Store for records that are due.
type Claim struct {
	// Queue of the records.
	Queue string
	// Status of the records.
	Status Status
	// Token is what the records are claimed by.
	Token string
	// Now is the time of the claim.
	Now time.Time
	// Lease is how long it lasts.
	Lease time.Duration
	// Limit is how many records at most, from 1 to MaxClaim.
	Limit int
	// DueFirst is how many of Limit are taken by DueAt alone, so that records of a
	// lower Priority come while there are always some of a higher one. From 0 to
	// Limit.
	DueFirst int
}

// MaxClaim bounds Claim.Limit.
const MaxClaim = 10_000

// Validate reports the first fault as ErrInvalid.
func (c *Claim) Validate() error {
	switch {
	case c.Queue == "":
		return &InvalidError{Field: "Claim.Queue", Problem: "is empty"}
	case !c.Status.Valid():
		return &InvalidError{Field: "Claim.Status", Problem: fmt.Sprintf("is %.32q, want one of the statuses", string(c.Status))}
	case c.Token == "":
		return &InvalidError{Field: "Claim.Token", Problem: "is empty"}
	case c.Now.IsZero():
		return &InvalidError{Field: "Claim.Now", Problem: "is zero"}
	case c.Lease <= 0:
		return &InvalidError{Field: "Claim.Lease", Problem: fmt.Sprintf("is %s, want more than 0", c.Lease)}
	case c.Limit < 1 || c.Limit > MaxClaim:
		return &InvalidError{Field: "Claim.Limit", Problem: fmt.Sprintf("is %d, want 1 to %d", c.Limit, MaxClaim)}
	case c.DueFirst < 0 || c.DueFirst > c.Limit:
		return &InvalidError{Field: "Claim.DueFirst", Problem: fmt.Sprintf("is %d, want 0 to Limit (%d)", c.DueFirst, c.Limit)}
	}
	return nil
}

// RecordStats counts records.
type RecordStats struct {
	// Total is how many records there are.
	Total int `json:"total"`
	// Counts has how many, by status and priority; what is 0 may be missing.
	Counts map[Status]map[Priority]int `json:"counts"`
	// OldestPending is the earliest CreatedAt of the records that are pending, zero
	// when none is.
	OldestPending time.Time `json:"oldest_pending,omitzero"`
	// OldestQueued is the earliest UpdatedAt of the records that are queued: since
	// when the transport has had the message that it has had longest. Zero when none
	// is. One that is much older than the queue is long was lost by the transport:
	// see Publisher.Resend.
	OldestQueued time.Time `json:"oldest_queued,omitzero"`
}

// Of is how many records have the status.
func (s RecordStats) Of(status Status) int {
	total := 0
	for _, count := range s.Counts[status] {
		total += count
	}
	return total
}

// unanswered says whether err is a failure of the store, not its answer.
func unanswered(err error) bool {
	return err != nil && !errors.Is(err, ErrLate) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid)
}

// recorded says whether the record became what it is by the update, as far as
// that can be told when the first try of the update had no answer.
func recorded(update *Update, progress *Progress, err error) bool {
	return err == nil || errors.Is(err, ErrLate) && progress.Status == update.Status && progress.UpdatedAt.Equal(update.At)
}
