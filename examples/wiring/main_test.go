package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// until ends a run when it has logged something.
type until struct {
	event string
	end   context.CancelFunc
	slog.Handler
}

func (u until) Handle(_ context.Context, record slog.Record) error {
	if record.Message == u.event {
		u.end()
	}
	return nil
}

func (until) Enabled(context.Context, slog.Level) bool { return true }
func (u until) WithAttrs([]slog.Attr) slog.Handler     { return u }
func (u until) WithGroup(string) slog.Handler          { return u }

// The wiring delivers its message, ends without an error, and starts again on the same
// file.
func TestWiring(t *testing.T) {
	file := filepath.Join(t.TempDir(), "orders.db")
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, run(ctx, file, slog.New(until{event: "message delivered", end: cancel})))
	}
}
