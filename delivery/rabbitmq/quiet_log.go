package rabbitmq

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// firstQuiet is for how long an error that was logged is not logged again. After
	// that it is twice as long each time, up to longestQuiet.
	firstQuiet   = 10 * time.Second
	longestQuiet = time.Hour
	// maxQuiet bounds how many errors are known.
	maxQuiet = 1000
)

// quietHandler is a slog.Handler for a transport's events. What is logged as an error
// remains until somebody changes something, and may be found by each connection and
// each queue again and again. So one with the same cause is logged at doubling
// intervals, with how often it was not.
type quietHandler struct {
	slog.Handler
	known *knownErrors
}

// knownErrors are the errors that a quietHandler has logged.
type knownErrors struct {
	forget time.Duration // an error that was away for so long is a new one

	mu     sync.Mutex
	errors map[string]*knownError
}

type knownError struct {
	quiet  time.Duration
	until  time.Time
	last   time.Time
	hidden int64
}

// quietLogger keeps quiet about errors that come again within some multiple of the
// longest delay between two tries. Nil discards everything.
func quietLogger(logger *slog.Logger, longest time.Duration) *slog.Logger {
	if logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	known := &knownErrors{forget: firstQuiet + 2*longest, errors: make(map[string]*knownError)}
	return slog.New(quietHandler{logger.Handler(), known})
}

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, record slog.Record) error {
	if record.Level < slog.LevelError {
		return h.Handler.Handle(ctx, record)
	}
	hidden, loud := h.known.see(keyOf(record), record.Time)
	if !loud {
		return nil
	}
	if hidden > 0 {
		record = record.Clone()
		record.AddAttrs(slog.Int64("repeated", hidden))
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs), h.known}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name), h.known}
}

// keyOf is the same for errors with the same cause, whoever has found it.
func keyOf(record slog.Record) string {
	var key strings.Builder
	key.WriteString(record.Message)
	record.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "purpose", "connection", "retry_in":
		default:
			key.WriteByte(0)
			key.WriteString(a.String())
		}
		return true
	})
	return key.String()
}

// see says whether an error is to be logged now, and how often it was not before.
func (k *knownErrors) see(key string, now time.Time) (hidden int64, loud bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.errors[key]
	if e == nil || now.Sub(e.last) > k.forget {
		if len(k.errors) >= maxQuiet {
			clear(k.errors)
		}
		k.errors[key] = &knownError{quiet: firstQuiet, until: now.Add(firstQuiet), last: now}
		return 0, true
	}
	e.last = now
	if now.Before(e.until) {
		e.hidden++
		return 0, false
	}
	hidden, e.hidden = e.hidden, 0
	e.quiet = min(2*e.quiet, longestQuiet)
	e.until = now.Add(e.quiet)
	return hidden, true
}
