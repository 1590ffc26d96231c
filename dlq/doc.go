// Package dlq keeps the messages that delivery gives up, so that somebody can
// look at them, group them, send them again or throw them away. Nothing leaves
// it by itself: a dead letter stays until it is requeued, deleted or purged.
//
// # Pieces
//
// A Store keeps entries; Memory is one for tests and for hosts without a
// database. A Manager does the work on top of a Store, and is the
// delivery.DeadLetterer that a consumer's DeadLetters asks for.
//
// An Entry is the whole message with its history, the reason, and a
// Fingerprint of the last error: entries that failed in the same way have the
// same one, whatever numbers, identifiers and names their errors mention.
//
// # Requeueing
//
// Manager.Requeue claims entries for a while, sends them as the next
// generation, and removes them once the sender has confirmed:
//
//   - Of several calls for the same entry at once, one sends it and the others
//     get ErrClaimed.
//   - What the sender did not confirm stays, delivery.ErrOutcomeUnknown
//     included.
//   - A crash between the confirm and the removal leaves the entry. Requeueing
//     it again sends the same generation again, which consumers with an
//     idempotency store suppress as a duplicate. Such an entry is told as
//     ErrNotRemoved where the process lives to tell it.
//   - A put of the same letter while it is being sent keeps the entry: the
//     removal is for what was sent, not for what came since.
//
// # Bulk replays
//
// A bulk replay is a Job: a filter, a rate cap, and how far it is. Manager.Preview
// counts what a filter picks, StartReplay stores a job for it, and RunJobs, which
// hosts run beside their consumers, works it. Job and Jobs tell the progress,
// CancelReplay ends it. The store has to be a JobStore too; Memory and redisstore
// are.
//
//   - A job survives the process, as far as the store does, and another runner
//     goes on with it: at once when its runner was stopped, after Config.Lease
//     when it died.
//   - Nothing that was given up after the job began is sent by it, so that what
//     fails again doesn't go in circles. That is told by Entry.DeadAt, as far as
//     the clocks of the machines agree.
//   - Two jobs over the same entries send each of them once, as two calls of
//     Requeue do, and what holds for Requeue after a crash holds for a job's
//     batch. A store that is away for longer than the lease after a batch was
//     sent is as a crash, when another runner takes the job over.
//   - A job that waits for its transport waits until it is back or the job is
//     cancelled, and holds no entry meanwhile.
//   - The last KeptJobs finished jobs are kept to be looked at.
//
// # Errors
//
// Methods for several ids tell the outcome of each: a delivery.Result per id, in
// the call's order, and an error that is nil when all went well and otherwise a
// *delivery.ResultsError, through which errors.Is finds the error of any id. What
// can be matched is listed at ErrConfig. Errors and logs name entries by their id
// and never contain a body or a recipient; Entry.Error, which comes from the
// host's handler, is not logged either.
//
// # Usage
//
//	manager := dlq.NewManager(store, publisher, dlq.Config{Metrics: collector, Logger: logger})
//	page, err := manager.List(ctx, dlq.Query{Filter: dlq.Filter{Reason: delivery.ReasonExhausted}})
//	results, err := manager.Requeue(ctx, page.Entries[0].ID)
//
//	go manager.RunJobs(ctx)
//	preview, err := manager.Preview(ctx, dlq.Filter{Fingerprint: fingerprint})
//	job, err := manager.StartReplay(ctx, dlq.Filter{Fingerprint: fingerprint}, dlq.ReplayConfig{Rate: 50})
package dlq
