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
// # Errors
//
// Methods for several ids tell the outcome of each: a Result per id, in the
// call's order, and an error that is nil when all went well and otherwise a
// *ResultsError, through which errors.Is finds the error of any id. What can
// be matched is listed at ErrConfig. Errors and logs name entries by their id
// and never contain a body or a recipient; Entry.Error, which comes from the
// host's handler, is not logged either.
//
// # Usage
//
//	manager := dlq.NewManager(store, publisher, dlq.Config{Metrics: collector, Logger: logger})
//	page, err := manager.List(ctx, dlq.Query{Filter: dlq.Filter{Reason: delivery.ReasonExhausted}})
//	results, err := manager.Requeue(ctx, page.Entries[0].ID)
package dlq
