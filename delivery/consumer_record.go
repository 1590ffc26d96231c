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
	progress, err := r.tell(ctx, j, update)
	switch {
	case err == nil:
	case errors.Is(err, ErrLate):
		// It was overtaken: the end user acknowledged already, or this copy is old.
		if update.DeadLetterID != "" && progress.Status.Final() {
			if err := r.takeBack(ctx, update.DeadLetterID); err != nil {
				return err
			}
		}
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
		update.Failure = &Failure{At: v.at, Attempt: j.envelope.Attempt + 1, Error: shorten(v.err.Error())}
	}
	return update
}

// takeBack deletes the dead letter of a message that is done after all.
func (r *run) takeBack(ctx context.Context, id string) error {
	resolver, able := r.config.DeadLetters.(Resolver)
	if !able {
		r.config.Logger.LogAttrs(ctx, slog.LevelError, "dead letters of acknowledged messages stay",
			slog.Any("dead_letter_ids", []string{id}), slog.String("error", "DeadLetters is no Resolver"))
		return nil
	}
	if err := resolve(ctx, resolver, []string{id}); err != nil {
		return err
	}
	r.config.Logger.LogAttrs(ctx, slog.LevelInfo, "dead letter taken back", slog.String("dead_letter_id", id))
	return nil
}

// tell carries out the update in the store, on a new record if there is none: the
// message may come from a publisher without a store. Of a copy of something that
// was done before no record is made.
func (r *run) tell(ctx context.Context, j *job, update Update) (Progress, error) {
	limited := within(ctx, j.tick(), settleTimeout)
	defer limited.end()
	progress, errs := r.config.Store.Update(limited, update)
	if err := first(errs); !errors.Is(err, ErrNotFound) {
		if len(progress) != 1 {
			return Progress{}, err
		}
		return progress[0], err
	}
	if j.verdict.action == duplicate {
		return Progress{}, nil
	}
	record := newRecord(j.envelope, update.At)
	if err := record.Apply(update); err != nil {
		return record.Progress, err
	}
	return record.Progress, first(r.config.Store.Save(limited, record)) // ErrExists: to be tried again
}

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}
