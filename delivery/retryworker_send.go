package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// dispatch sends a batch, and notes as queued what the transport has confirmed.
// The rest stays claimed and comes due again when the lease ends, except for
// what the transport will never take.
func (p *patrol) dispatch(ctx context.Context, batch *claimed) {
	envelopes := make([]Envelope, len(batch.records))
	for i := range batch.records {
		envelopes[i] = batch.records[i].Envelope()
	}
	limited := within(ctx, batch.at, p.config.Lease/2)
	errs := eachOf(p.transport.Send(limited, envelopes), len(envelopes))
	limited.end()

	now := microseconds(time.Now())
	queued := make([]Update, 0, len(errs))
	var unsendable burials
	var failure error
	failures := 0
	for i, err := range errs {
		record := &batch.records[i]
		switch {
		case err == nil:
			queued = append(queued, p.queued(record, batch, now))
		case errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge):
			unsendable.add(p.config.Name, batch, record, ReasonPermanent, err, unsent(record, now, err))
		default:
			failure = err
			failures++
		}
	}
	switch {
	case failures > 0 && len(queued) == 0:
		if ctx.Err() == nil {
			p.sending.failed(ctx, failure)
		}
	case failures > 0:
		p.config.Logger.LogAttrs(ctx, slog.LevelWarn, "messages not taken by the transport, will be sent again",
			slog.Int("count", failures), slog.Any("error", failure))
		fallthrough
	default:
		p.sending.answered(ctx)
	}
	if len(queued) > 0 {
		p.mark(ctx, batch, queued)
	}
	p.bury(ctx, batch, &unsendable)
}

// queued is the update by which the transport has the message. In a Volatile one
// it stays claimed by who has the transport.
func (p *patrol) queued(record *Record, batch *claimed, now time.Time) Update {
	update := Update{
		ID:              record.ID,
		Status:          StatusQueued,
		Generation:      record.Generation,
		RetryCount:      record.RetryCount,
		At:              now,
		OnlyIfClaimedBy: batch.token,
	}
	if p.session != "" {
		update.ClaimedBy, update.DueAt = p.session, now.Add(p.config.Lease)
	}
	return update
}

// unsent is the update by which a message is given up that can't be sent. No
// attempt was made.
func unsent(record *Record, now time.Time, cause error) Update {
	return Update{
		ID:         record.ID,
		Status:     StatusFailed,
		Generation: record.Generation,
		RetryCount: record.RetryCount,
		At:         now,
		Failure:    record.failure(now, cause),
	}
}
