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
		if batch.records[i].Status == StatusQueued {
			envelopes[i].Crashes = 1 // it was handed over before, and its process is gone
		}
	}
	limited := within(ctx, batch.at, r.config.Lease/2)
	errs := eachOf(r.worker.transport.Send(limited, envelopes), len(envelopes))
	limited.end()
	logQueued(ctx, r.config.Logger, envelopes, errs)

	now := microseconds(time.Now())
	confirmed := make([]Update, 0, len(errs))
	var unsendable givenUp
	var failed failedSends
	for i, err := range errs {
		record := &batch.records[i]
		switch {
		case err == nil:
			confirmed = append(confirmed, r.confirmed(record, batch, now))
		case errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge):
			unsendable.add(r.config.Queue, batch, record, ReasonPermanent, err, record.failUnsent(now, err))
		default:
			failed.add(err)
		}
	}
	r.transportAnswered(ctx, len(confirmed), failed)
	if len(confirmed) > 0 {
		r.record(ctx, batch, confirmed)
	}
	r.giveUp(ctx, batch, &unsendable)
}

// failedSends are those of a batch that the transport did not take.
type failedSends struct {
	count   int
	refused int   // how many it gave an answer for
	last    error // of those that it gave no answer for, if there are any
}

func (f *failedSends) add(err error) {
	f.count++
	refused := errors.Is(err, ErrRefused) || errors.Is(err, ErrUnroutable)
	if refused {
		f.refused++
	}
	if !refused || f.refused == f.count {
		f.last = err
	}
}

// transportAnswered tells from the outcome of a batch whether the transport is
// down. While it takes some messages it is not, and neither while it refuses them
// one by one: one queue may be full, or missing, and others have room. What is
// refused waits for the end of its claim, and nothing else does.
func (r *workerRun) transportAnswered(ctx context.Context, confirmed int, failed failedSends) {
	if failed.count > 0 && confirmed+failed.refused == 0 {
		if ctx.Err() == nil {
			r.health.transport.failed(ctx, failed.last)
		}
		return
	}
	if failed.count > 0 {
		r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "due messages not sent",
			slog.Int("count", failed.count), errorAttr(failed.last))
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
