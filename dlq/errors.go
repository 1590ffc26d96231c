package dlq

import "errors"

// What can go wrong, to be matched with errors.Is. The errors of a context, a
// Store or a Sender are passed on.
var (
	// ErrConfig: a configuration can't be used; the text names every field.
	ErrConfig = errors.New("dlq: invalid config")
	// ErrInvalid: an argument can't be used; the text names it.
	ErrInvalid = errors.New("dlq: invalid argument")
	// ErrQuery: a query has a field that is out of range; the text names it.
	ErrQuery = errors.New("dlq: invalid query")
	// ErrCursor: a cursor is damaged, or belongs to a query with another filter
	// or order. Begin with the first page again.
	ErrCursor = errors.New("dlq: invalid cursor")
	// ErrNotFound: there is no entry with this id.
	ErrNotFound = errors.New("dlq: no such entry")
	// ErrClaimed: another call, or a replay job, is requeueing the entry.
	ErrClaimed = errors.New("dlq: entry is being requeued")
	// ErrClaimLost: the claim ended, and the entry may have been claimed anew.
	ErrClaimLost = errors.New("dlq: claim lost")
	// ErrReplaced: the entry was put again since it was claimed.
	ErrReplaced = errors.New("dlq: entry was put again since it was claimed")
	// ErrNotReplayable: the entry is no message that could be sent again.
	ErrNotReplayable = errors.New("dlq: entry can't be sent again")
	// ErrNotRemoved: the entry was sent again and confirmed, but is still kept.
	// Requeueing it again sends the same generation, which consumers with an
	// idempotency store suppress. Deleting it is safe.
	ErrNotRemoved = errors.New("dlq: entry was sent again but not removed")
	// ErrNoSender: the Manager was made without a Sender.
	ErrNoSender = errors.New("dlq: no sender")
	// ErrFull: the store has reached its bound and takes no further entry.
	ErrFull = errors.New("dlq: store is full")
	// ErrNoJobs: the Manager's Store is no JobStore.
	ErrNoJobs = errors.New("dlq: store keeps no jobs")
	// ErrJobNotFound: there is no job with this id.
	ErrJobNotFound = errors.New("dlq: no such job")
	// ErrJobChanged: the job does not have the version that was to be replaced.
	ErrJobChanged = errors.New("dlq: job was changed by someone else")
	// ErrJobFinished: the job is done, so it can't be cancelled.
	ErrJobFinished = errors.New("dlq: job is done")
	// ErrTooManyJobs: MaxRunningJobs jobs are not finished.
	ErrTooManyJobs = errors.New("dlq: too many jobs are running")
)
