package delivery

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/retry"
)

// burials are messages to be given up, each with the letter and the update by
// which its record becomes failed.
type burials struct {
	letters []DeadLetter
	updates []Update
}

func (b *burials) add(source string, batch *claimed, record *Record, reason Reason, cause error, update Update) {
	envelope := record.Envelope()
	letter := newDeadLetter(source, &envelope, reason, cause, update.At)
	update.OnlyIfClaimedBy, update.DeadLetterID = batch.token, letter.ID
	// The letter has the message as it is after the update.
	if after := *record; after.Apply(update) == nil {
		letter.Envelope = after.Envelope()
	}
	b.letters = append(b.letters, letter)
	b.updates = append(b.updates, update)
}

// bury stores the letters, then has the records become failed, and returns the
// updates of those that did. When the letters can't be stored, the records stay
// claimed and come due again when the lease ends.
func (p *patrol) bury(ctx context.Context, batch *claimed, b *burials) []*Update {
	if len(b.letters) == 0 {
		return nil
	}
	if err := p.put(ctx, b.letters); err != nil {
		if ctx.Err() == nil {
			p.burying.failed(ctx, err)
		}
		return nil
	}
	p.burying.answered(ctx)
	progress, errs := p.mark(ctx, batch, b.updates)
	var buried []*Update
	for i := range b.updates {
		update := &b.updates[i]
		switch {
		case landed(update, &progress[i], errs[i]):
			buried = append(buried, update)
			p.config.Logger.LogAttrs(ctx, slog.LevelError, "dead-lettered",
				slog.String("message_id", update.ID), slog.String("reason", string(b.letters[i].Reason)), slog.String("error", b.letters[i].Error))
		case errors.Is(errs[i], ErrLate) && progress[i].Status.Final():
			// In any other status somebody else may have put the same letter.
			p.unfounded.add(update.DeadLetterID)
		}
	}
	return buried
}

func (p *patrol) put(ctx context.Context, letters []DeadLetter) error {
	limited := within(ctx, time.Now(), settleTimeout)
	defer limited.end()
	return p.config.DeadLetters.DeadLetter(limited, letters...)
}

// unfounded are letters of messages that were acknowledged between the letter and
// the update: they are to be taken back. Nothing else waits for that. It belongs
// to the patrol's own goroutine.
type unfounded struct {
	letters  DeadLetterer
	logger   *slog.Logger
	ids      []string
	failures int
	again    time.Time // when to try next, zero: at once
}

func (u *unfounded) add(id string) { u.ids = append(u.ids, id) }

// takeBack deletes the letters, unless it is too early to try that again.
func (u *unfounded) takeBack(ctx context.Context) {
	if len(u.ids) == 0 || u.again.After(time.Now()) {
		return
	}
	resolver, able := u.letters.(Resolver)
	if !able {
		u.abandon(ctx, errors.New("DeadLetters is no Resolver"))
		return
	}
	err := resolve(ctx, resolver, u.ids)
	if err == nil {
		u.ids, u.failures, u.again = nil, 0, time.Time{}
		return
	}
	u.again = time.Now().Add(backoff(u.failures, outageMost))
	if u.failures++; u.failures == 1 {
		u.logger.LogAttrs(ctx, slog.LevelWarn, "dead letters of acknowledged messages not taken back yet",
			slog.Any("dead_letter_ids", u.ids), slog.Any("error", err))
	}
}

// finish tries until it works, the time given has come, or ctx ends.
func (u *unfounded) finish(ctx context.Context, until time.Time) {
	for u.takeBack(ctx); len(u.ids) > 0; u.takeBack(ctx) {
		if u.again.After(until) || !retry.Wait(ctx.Done(), time.Until(u.again)) {
			u.abandon(ctx, errors.New("given up"))
		}
	}
}

func (u *unfounded) abandon(ctx context.Context, err error) {
	u.logger.LogAttrs(ctx, slog.LevelError, "dead letters of acknowledged messages stay",
		slog.Any("dead_letter_ids", u.ids), slog.Any("error", err))
	u.ids, u.failures, u.again = nil, 0, time.Time{}
}
