package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// sendDue sends a batch, and records as queued what the transport has confirmed.
// The rest stays claimed and comes due again when the lease ends, except for
// what the transport will never take.
func (r *workerRun) sendDue(ctx context.Context, batch *claimedBatch) {
	envelopes := make([]Envelope, len(batch.records))
	for i := range batch.records {
		envelopes[i] = batch.records[i].Envelope()
	}
	limited := within(ctx, batch.at, r.config.Lease/2)
	errs := eachOf(r.worker.transport.Send(limited, envelopes), len(envelopes))
	limited.end()

	now := microseconds(time.Now())
	confirmed := make([]Update, 0, len(errs))
	var unsendable givenUp
	var failure error
	failures := 0
	for i, err := range errs {
		record := &batch.records[i]
		switch {
		case err == nil:
			confirmed = append(confirmed, r.confirmed(record, batch, now))
		case errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge):
			unsendable.add(r.config.Queue, batch, record, ReasonPermanent, err, record.failUnsent(now, err))
		default:
			failure = err
			failures++
		}
	}
	r.transportAnswered(ctx, len(confirmed), failures, failure)
	if len(confirmed) > 0 {
		r.record(ctx, batch, confirmed)
	}
	r.giveUp(ctx, batch, &unsendable)
}

// transportAnswered tells from the outcome of a batch whether the transport is
// down. While it takes some messages it is not.
func (r *workerRun) transportAnswered(ctx context.Context, confirmed, failures int, failure error) {
	if failures > 0 && confirmed == 0 {
		if ctx.Err() == nil {
			r.health.transport.failed(ctx, failure)
		}
		return
	}
	if failures > 0 {
		r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "messages not taken by the transport, will be sent again",
			slog.Int("count", failures), errorAttr(failure))
	}
	r.health.transport.answered(ctx)
}

// confirmed is the update by which the transport has the message. In a Volatile
// transport it stays claimed, by the session of the process.
func (r *workerRun) confirmed(record *Record, batch *claimedBatch, now time.Time) Update {
	update := Update{
		ID:              record.ID,
		Status:          StatusQueued,
		Generation:      record.Generation,
		RetryCount:      record.RetryCount,
		At:              now,
		OnlyIfClaimedBy: batch.token,
	}
	if r.worker.session != "" {
		update.ClaimedBy, update.DueAt = r.worker.session, now.Add(r.config.Lease)
	}
	return update
}
