package delivery

import (
	"context"
	"fmt"
	"time"
)

// Cancel withdraws messages that have not been sent yet: scheduled ones, and
// those between two attempts. Cancelling twice is no error. It is ErrClosed after
// Close, and ctx's error if ctx had ended before. Any other outcome is a
// *ResultsError with a result for each ID, in order: nil; ErrNotFound; ErrLate
// where the message is in the transport, done, or about to be sent; ErrStoreDown
// or a context's error where it may or may not be cancelled.
//
// Of messages with the idempotency key of one that was cancelled, the next one is
// published, as if that had not been. The key is forgotten when the cancelled one's
// is: IdempotencyTTL after that was published.
//
// A message that was sent with an unknown outcome counts as not sent. If it got
// to the transport all the same, it is delivered although it was cancelled, and
// its record stays cancelled.
//
// Cancel needs a Store, or is ErrUnsupported.
func (p *Publisher) Cancel(ctx context.Context, ids ...string) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	defer p.calls.end()
	if len(ids) == 0 {
		return nil
	}
	if p.config.Store == nil {
		return fmt.Errorf("%w: Cancel wants PublisherConfig.Store", ErrUnsupported)
	}
	now := time.Now()
	updates := make([]Update, len(ids))
	for i, id := range ids {
		updates[i] = Update{ID: id, Status: StatusCancelled, At: now}
	}
	_, errs := p.config.Store.Update(ctx, updates...)
	return resultsError(len(ids), func(i int) string { return ids[i] }, eachOf(errs, len(ids)))
}
