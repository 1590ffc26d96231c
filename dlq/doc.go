// Package dlq keeps the messages that package delivery gives up: its dead
// letters. They can be listed, grouped by error, sent again and deleted. A dead
// letter stays until it is requeued, deleted or purged.
//
//	manager := dlq.NewManager(store, publisher, dlq.Config{Metrics: collector, Logger: logger})
//	page, err := manager.List(ctx, dlq.Query{Filter: dlq.Filter{Reason: delivery.ReasonExhausted}})
//	if err != nil {
//		return err
//	}
//	for _, entry := range page.Entries {
//		if _, err := manager.Requeue(ctx, entry.ID); err != nil {
//			return err
//		}
//	}
//
// # Pieces
//
// A Store keeps entries. Memory is one for tests and for hosts without a
// database. A Manager works on a Store, and is the delivery.DeadLetterer that a
// consumer's config asks for.
//
// An Entry is the whole message with its history, the reason, and a Fingerprint
// of the last error. Entries that failed in the same way have the same
// fingerprint, whatever numbers, identifiers and names their errors mention.
//
// No letter is such that it could not be kept, and would be put for ever: see
// Manager.DeadLetter.
//
// # Requeueing
//
// Manager.Requeue claims entries for a while, sends them as the next
// generation, and removes them when the sender has confirmed them:
//
//   - Of several calls for the same entry at once, one sends it. The others get
//     ErrClaimed.
//   - An entry that the sender did not confirm stays, also with
//     delivery.ErrOutcomeUnknown.
//   - A crash between the confirm and the removal leaves the entry. Requeueing
//     it again sends the same generation again, which consumers with an
//     idempotency store suppress as a duplicate. If the process lives, the
//     error for such an entry is ErrNotRemoved.
//   - An entry that is put again while it is being sent stays, because only the
//     former one was sent.
//   - A malformed entry is sent by Manager.RequeueMalformed only, which nothing but
//     a person should call.
//
// # Bulk replays
//
// A bulk replay is a Job: a filter, a rate, and its progress. Preview counts what
// a filter picks, StartReplay stores a job, and RunJobs, which hosts call beside
// their consumers, runs it. Job and Jobs return the progress, and CancelReplay
// ends it. Except for Preview, this needs a Store that is a JobStore too, as those
// of Memory, redisstore and sqlstore are. See the example of StartReplay.
//
//   - A job survives its process, if the store does, and another runner goes on
//     with it: at once when its runner was stopped, and after Config.Lease when
//     that died.
//   - A job does not send what it sent once and what failed again: it passes the
//     entries of the highest generation first, and what it sends is of the next
//     one. The clocks of the machines have no say in it. (Of entries that were
//     requeued 100 times or more it takes all at once. There it is Entry.DeadAt
//     that decides, as it does on what others give up after the job began.)
//   - Two jobs over the same entries send each of them once, as two calls of
//     Requeue do. After a crash, a job's batch is as a call of Requeue. If the
//     store is away for longer than the lease after a batch was sent, and
//     another runner takes the job over, that is as a crash.
//   - A job whose transport is down waits until it is back or the job is
//     cancelled. Meanwhile it claims no entry.
//   - The last KeptJobs finished jobs are kept.
//
// # Errors
//
// Methods for several ids return the outcome of each: a delivery.Result per id,
// in the call's order, and an error that is nil when all went well and
// otherwise a *delivery.ResultsError, through which errors.Is finds the error
// of any id. What can be matched is listed at ErrConfig. Errors and logs name
// entries by their ids and their messages', and never contain a body or a
// recipient. Entry.Error, which comes from the host's handler, is not logged
// either.
//
// # Metrics
//
// barid_dead_letters_total{reason} counts letters stored, and
// barid_dead_letters is how many entries there are. See Config.Metrics.
//
// # Writing a store
//
// Store and JobStore are the contracts, and the suites of package dlqtest test
// them. Query.Scan, Filter.Match, Claim.Validate, CheckFilter, CheckTop,
// CheckJob, CompareJobs and Entry.Clone are there for stores.
package dlq
