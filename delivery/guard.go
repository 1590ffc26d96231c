package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/retry"
)

// The host's functions may panic, and so may the methods of its errors and of what
// it panics with. These functions call them, so that nothing of that ends the
// process or passes for the outcome of something else.

// textOf is err's text, or what its method panicked with.
func textOf(err error) string { return fmt.Sprint(err) } // recovers panics of Error

// errorAttr is err for the log.
func errorAttr(err error) slog.Attr { return slog.String("error", textOf(err)) }

// guarded calls do, and returns its panic as an error.
func guarded(do func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = newPanicError(value)
		}
	}()
	return do()
}

// guardedLogger is logger, or one that discards, whose handler may panic.
func guardedLogger(logger *slog.Logger) *slog.Logger {
	if logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	if _, is := logger.Handler().(guardedHandler); is {
		return logger
	}
	return slog.New(guardedHandler{logger.Handler()})
}

type guardedHandler struct{ slog.Handler }

func (h guardedHandler) Enabled(ctx context.Context, level slog.Level) (enabled bool) {
	defer func() {
		if recover() != nil {
			enabled = false
		}
	}()
	return h.Handler.Enabled(ctx, level)
}

func (h guardedHandler) Handle(ctx context.Context, record slog.Record) error {
	return guarded(func() error { return h.Handler.Handle(ctx, record) })
}

func (h guardedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return guardedHandler{h.Handler.WithAttrs(attrs)}
}

func (h guardedHandler) WithGroup(name string) slog.Handler {
	return guardedHandler{h.Handler.WithGroup(name)}
}

// classify asks the classifier, whose rules are the host's, as are the methods of
// err: a panic makes the error one like any other.
func classify(classifier *retry.Classifier, err error) (class retry.Class) {
	defer func() {
		if recover() != nil {
			class = retry.ClassRecoverable
		}
	}()
	return classifier.Classify(err)
}

// askedDelay is the wait that err asks for.
func askedDelay(err error) (delay time.Duration, asked bool) {
	defer func() {
		if recover() != nil {
			delay, asked = 0, false
		}
	}()
	return retry.DelayOf(err)
}

// retryAfter asks the policy whether there may be another attempt after n failed
// ones, and when. A policy that panics allows none: the error says so.
func retryAfter(policy retry.Policy, n int) (delay time.Duration, allowed bool, fault error) {
	fault = guarded(func() error {
		if allowed = policy.CanRetry(n); allowed {
			delay = max(0, policy.Delay(n))
		}
		return nil
	})
	if fault != nil {
		return 0, false, fmt.Errorf("delivery: retry policy: %w", fault)
	}
	return delay, allowed, nil
}
