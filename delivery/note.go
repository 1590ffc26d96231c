package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// note tells the message store what became of the message, unless it knows.
func (r *run) note(ctx context.Context, j *job) error {
	if j.noted || r.config.Store == nil {
		return nil
	}
	update, worth := r.news(j)
	if !worth {
		j.noted = true
		return nil
	}
	err := r.tell(ctx, j, update)
	switch {
	case err == nil, errors.Is(err, ErrLate):
		// What is late was overtaken: the end user acknowledged already, or this
		// copy is old.
	case errors.Is(err, ErrInvalid):
		r.config.Logger.LogAttrs(ctx, slog.LevelWarn, "message can't be recorded",
			slog.String("message_id", j.id()), slog.Any("error", err))
	default:
		return err
	}
	j.noted = true
	return nil
}

// news is what there is to be noted of the verdict, if anything.
func (r *run) news(j *job) (update Update, worth bool) {
	v := &j.verdict
	switch v.action {
	case deliver:
		return r.done(j), true
	case duplicate:
		// The one that was first may have died between its mark and its note.
		return r.done(j), true
	case retryThen: // waits in the transport
		update = r.newsOf(j, StatusQueued, time.Time{})
		if session := sessionOf(r.transport); session != "" {
			update.ClaimedBy, update.DueAt = session, v.at.Add(v.delay+sessionHold)
		}
		return update, true
	case bury:
		if v.reason == ReasonMalformed {
			return Update{}, false
		}
		update = r.newsOf(j, StatusFailed, time.Time{})
		update.DeadLetterID = v.letterID
		return update, true
	default:
		return Update{}, false
	}
}

// done is the news that the handler is done.
func (r *run) done(j *job) Update {
	update := Update{
		ID: j.envelope.ID, Status: StatusDelivered,
		Generation: j.envelope.Generation, RetryCount: j.envelope.Attempt, At: j.verdict.at,
	}
	if r.config.awaitsAck(&j.envelope.Message) {
		update.Status, update.DueAt = StatusSent, j.verdict.at.Add(r.config.AckTimeout)
	}
	return update
}

// newsOf is the news that the message goes on as v.next.
func (r *run) newsOf(j *job, status Status, due time.Time) Update {
	v := &j.verdict
	update := Update{
		ID: v.next.ID, Status: status, Generation: v.next.Generation, RetryCount: v.next.Attempt,
		At: v.at, DueAt: due,
	}
	if v.err != nil && v.action != postpone {
		update.Failure = &Failure{At: v.at, Attempt: j.envelope.Attempt, Error: shorten(v.err.Error())}
	}
	return update
}

// tell carries out the update in the store, on a new record if there is none: the
// message may come from a publisher without a store. Of a copy of something that
// was done before no record is made.
func (r *run) tell(ctx context.Context, j *job, update Update) error {
	limited := within(ctx, j.tick(), settleTimeout)
	defer limited.end()
	_, errs := r.config.Store.Update(limited, update)
	if errs == nil || !errors.Is(errs[0], ErrNotFound) {
		return first(errs)
	}
	if j.verdict.action == duplicate {
		return nil
	}
	record := newRecord(j.envelope, update.At)
	if err := record.Apply(update); err != nil {
		return err
	}
	return first(r.config.Store.Save(limited, record)) // ErrExists: to be tried again
}

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}
