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

// expire counts an overdue acknowledgment as a failed attempt: another one is
// scheduled, or the message is given up.
func (p *patrol) expire(ctx context.Context, batch *claimed) {
	now := microseconds(time.Now())
	retries := make([]Update, 0, len(batch.records))
	var exhausted burials
	for i := range batch.records {
		record := &batch.records[i]
		if !record.CanRetry(p.config.Retry) {
			exhausted.add(p.config.Name, batch, record, ReasonAckTimeout, errNotAcknowledged, record.Fail(now, "", errNotAcknowledged))
			continue
		}
		update := record.ScheduleRetry(now, p.config.Retry, errNotAcknowledged)
		update.OnlyIfClaimedBy = batch.token
		retries = append(retries, update)
	}
	if len(retries) > 0 {
		progress, errs := p.mark(ctx, batch, retries)
		for i := range retries {
			if landed(&retries[i], &progress[i], errs[i]) {
				p.timedOut(ctx, &retries[i])
			}
		}
	}
	for _, update := range p.bury(ctx, batch, &exhausted) {
		p.timedOut(ctx, update)
	}
}

func (p *patrol) timedOut(ctx context.Context, update *Update) {
	p.timeouts.Add(1)
	p.config.Logger.LogAttrs(ctx, slog.LevelWarn, "acknowledgment timeout",
		slog.String("message_id", update.ID), slog.Int("attempt", update.RetryCount), slog.String("status", string(update.Status)))
}
