package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// errNotAcknowledged is the failure of an attempt whose acknowledgment did not
// come.
var errNotAcknowledged = errors.New("delivery: not acknowledged in time")

// failOverdue counts each overdue acknowledgment of a batch as a failed attempt:
// another attempt is scheduled, or the message is given up.
func (r *workerRun) failOverdue(ctx context.Context, batch *claimedBatch) {
	now := microseconds(time.Now())
	retries := make([]Update, 0, len(batch.records))
	var exhausted givenUp
	for i := range batch.records {
		record := &batch.records[i]
		delay, allowed, fault := retryAfter(r.config.Retry, record.RetryCount)
		if !allowed {
			cause := errors.Join(errNotAcknowledged, fault)
			exhausted.add(r.config.Queue, batch, record, ReasonAckTimeout, cause, record.fail(now, cause))
			continue
		}
		update := record.scheduleRetry(now, delay, errNotAcknowledged)
		update.OnlyIfClaimedBy = batch.token
		retries = append(retries, update)
	}
	if len(retries) > 0 {
		progress, errs := r.record(ctx, batch, retries)
		for i := range retries {
			if recorded(&retries[i], &progress[i], errs[i]) {
				r.ackTimedOut(ctx, &retries[i])
			}
		}
	}
	for _, update := range r.giveUp(ctx, batch, &exhausted) {
		r.ackTimedOut(ctx, update)
	}
}

// ackTimedOut reports an attempt that update has recorded as failed. RetryCount
// includes it, so it is the attempt's number, from 1.
func (r *workerRun) ackTimedOut(ctx context.Context, update *Update) {
	r.ackTimeouts.Add(1)
	r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "acknowledgment timeout",
		slog.String("message_id", update.ID), slog.Int("attempt", update.RetryCount), slog.String("status", string(update.Status)))
}
