package redisstate

import (
	"context"
	"log/slog"
	"time"
)

// Sync does once what Run does again and again: it writes what happened to the
// breakers here, and reads and follows what happened elsewhere. An instance that
// calls it before its first Allow knows of a force and of an open state from its
// first call on. It returns an error that matches ErrUnavailable if that failed
// for any breaker, or ctx's own error.
func (f *Fleet) Sync(ctx context.Context) error {
	if err := f.Err(); err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	select {
	case f.syncing <- struct{}{}:
		defer func() { <-f.syncing }()
	case <-ctx.Done():
		return f.unavailable(ctx, ctx.Err())
	}
	members := f.snapshot()
	if len(members) == 0 {
		return f.unavailable(ctx, ctx.Err())
	}
	sent := time.Now()
	commands := make([]command, len(members))
	for i, m := range members {
		commands[i] = m.next(f, sent)
	}
	answers, err := f.ask(ctx, commands)
	if ctx.Err() != nil {
		return f.unavailable(ctx, ctx.Err())
	}
	var first error
	failed := 0
	for i, m := range members {
		fault := err
		if fault == nil {
			fault = answers[i].err
		}
		if fault != nil {
			m.detach()
			if failed++; first == nil {
				first = fault
			}
			continue
		}
		m.follow(f, commands[i], answers[i].record, sent)
	}
	f.logAway(ctx, failed, len(members), first)
	return f.unavailable(ctx, first)
}

// ask is the one exchange of a Sync, within Timeout. A client that doesn't heed
// contexts may go on longer; the next Sync waits for it.
func (f *Fleet) ask(ctx context.Context, commands []command) ([]answer, error) {
	bounded, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	select {
	case f.sending <- struct{}{}:
		return f.exchange(ctx, bounded, commands, func() { <-f.sending })
	case <-bounded.Done():
		return nil, f.timeIsUp(ctx, bounded)
	}
}

func (f *Fleet) snapshot() []*member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members[:len(f.members):len(f.members)]
}

// logAway logs when Redis goes away and comes back.
func (f *Fleet) logAway(ctx context.Context, failed, of int, err error) {
	f.mu.Lock()
	before := f.failing
	f.failing, f.away = failed > 0, failed == of
	f.mu.Unlock()
	switch {
	case failed > 0 && !before:
		f.config.Logger.LogAttrs(ctx, slog.LevelWarn, "breakers not shared",
			slog.Int("breakers", failed), slog.Any("error", f.unavailable(ctx, err)))
	case failed == 0 && before:
		f.config.Logger.LogAttrs(ctx, slog.LevelInfo, "breakers shared again")
	}
}

func (f *Fleet) isAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}
