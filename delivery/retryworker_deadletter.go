package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/retry"
)

// givenUp holds the messages of a batch that become dead letters: for each the
// letter, and the update by which its record becomes failed.
type givenUp struct {
	letters []DeadLetter
	updates []Update
}

func (g *givenUp) add(source string, batch *claimedBatch, record *Record, reason Reason, cause error, update Update) {
	envelope := record.Envelope()
	letter := newDeadLetter(source, &envelope, reason, cause, update.At)
	update.OnlyIfClaimedBy, update.DeadLetterID = batch.token, letter.ID
	// The letter has the message as it is after the update.
	if after := *record; after.Apply(update) == nil {
		letter.Envelope = after.Envelope()
	}
	g.letters = append(g.letters, letter)
	g.updates = append(g.updates, update)
}

// giveUp stores the letters, then records that the messages failed, and returns
// the updates that were recorded. When the letters can't be stored, the records
// stay claimed and come due again when the lease ends.
func (r *workerRun) giveUp(ctx context.Context, batch *claimedBatch, g *givenUp) []*Update {
	if len(g.letters) == 0 {
		return nil
	}
	if err := r.putLetters(ctx, g.letters); err != nil {
		if ctx.Err() == nil {
			r.health.deadLetters.failed(ctx, err)
		}
		return nil
	}
	r.health.deadLetters.answered(ctx)
	progress, errs := r.record(ctx, batch, g.updates)
	var failed []*Update
	for i := range g.updates {
		update := &g.updates[i]
		switch {
		case recorded(update, &progress[i], errs[i]):
			failed = append(failed, update)
			r.config.Logger.LogAttrs(ctx, slog.LevelError, "message dead-lettered",
				slog.String("message_id", update.ID), slog.String("dead_letter_id", g.letters[i].ID), slog.String("reason", string(g.letters[i].Reason)), slog.String("error", g.letters[i].Error))
		case errors.Is(errs[i], ErrLate) && progress[i].Status.Final():
			// In any other status another worker may have put the same letter.
			r.stale.add(update.DeadLetterID)
		}
	}
	return failed
}

func (r *workerRun) putLetters(ctx context.Context, letters []DeadLetter) error {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	return r.config.DeadLetters.DeadLetter(limited, letters...)
}

// staleLetters are dead letters of messages that were acknowledged after the
// letter was put and before the record could become failed. They are taken back;
// nothing else waits for that. It belongs to the run's own goroutine.
type staleLetters struct {
	letters  DeadLetterer
	logger   *slog.Logger
	ids      []string
	failures int
	again    time.Time // when to try next, zero: at once
}

func (s *staleLetters) add(id string) { s.ids = append(s.ids, id) }

// takeBack deletes the letters, unless it is too early to try that again.
func (s *staleLetters) takeBack(ctx context.Context) {
	if len(s.ids) == 0 || s.again.After(time.Now()) {
		return
	}
	resolver, able := s.letters.(Resolver)
	if !able {
		s.abandon(ctx, errors.New("DeadLetters is no Resolver"))
		return
	}
	err := resolve(ctx, resolver, s.ids)
	if err == nil {
		s.ids, s.failures, s.again = nil, 0, time.Time{}
		return
	}
	s.again = time.Now().Add(backoff(s.failures, outageMost))
	if s.failures++; s.failures == 1 {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "dead letters of acknowledged messages not taken back",
			slog.Any("dead_letter_ids", s.ids), errorAttr(err))
	}
}

// finish tries until it works, the time given has come, or ctx ends.
func (s *staleLetters) finish(ctx context.Context, until time.Time) {
	for s.takeBack(ctx); len(s.ids) > 0; s.takeBack(ctx) {
		if s.again.After(until) || !retry.Wait(ctx.Done(), time.Until(s.again)) {
			s.abandon(ctx, errors.New("given up"))
		}
	}
}

// abandon leaves the letters to people, who find their IDs in the log.
func (s *staleLetters) abandon(ctx context.Context, err error) {
	s.logger.LogAttrs(ctx, slog.LevelError, "dead letters of acknowledged messages stay",
		slog.Any("dead_letter_ids", s.ids), errorAttr(err))
	s.ids, s.failures, s.again = nil, 0, time.Time{}
}
