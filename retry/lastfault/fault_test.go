package lastfault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/retry/lastfault"
)

// late is a context that has a deadline in the past, and has not noticed yet.
type late struct{ context.Context }

func (late) Err() error                  { return nil }
func (late) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestNote(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	for name, test := range map[string]struct {
		ctx  context.Context
		err  error
		want string // empty for none
	}{
		"an answer":                              {t.Context(), nil, ""},
		"no key":                                 {t.Context(), redis.Nil, ""},
		"an error of the server's":               {t.Context(), fmt.Errorf("put: %w", redis.TxFailedErr), ""},
		"another fault":                          {t.Context(), refused, "dial: connection refused"},
		"another fault, and the context ended":   {canceled(t), refused, "dial: connection refused"},
		"a timeout":                              {t.Context(), os.ErrDeadlineExceeded, "i/o timeout"},
		"a timeout, and the context ended":       {canceled(t), os.ErrDeadlineExceeded, "before"},
		"a timeout that comes before the end":    {late{t.Context()}, os.ErrDeadlineExceeded, "before"},
		"the context's end":                      {canceled(t), context.Canceled, "before"},
		"the end of another context":             {t.Context(), fmt.Errorf("ask: %w", context.Canceled), "ask: context canceled"},
		"the end of another context by deadline": {t.Context(), context.DeadlineExceeded, "context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			var fault lastfault.Fault
			require.NoError(t, fault.Err())
			fault.Note(t.Context(), errors.New("before"))
			fault.Note(test.ctx, test.err)
			if test.want == "" {
				require.NoError(t, fault.Err())
				return
			}
			require.EqualError(t, fault.Err(), test.want)
			require.NotErrorIs(t, fault.Err(), context.DeadlineExceeded)
			require.NotErrorIs(t, fault.Err(), context.Canceled)
			require.Equal(t, errors.Is(test.err, syscall.ECONNREFUSED), errors.Is(fault.Err(), syscall.ECONNREFUSED))
		})
	}
}

func TestNotingAnAnswerTakesNoMemory(t *testing.T) {
	var fault lastfault.Fault
	require.Zero(t, testing.AllocsPerRun(100, func() { fault.Note(t.Context(), nil) }))
}

func TestWith(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	require.NoError(t, lastfault.With(canceled(t), nil, refused))
	require.Equal(t, refused, lastfault.With(canceled(t), refused, errors.New("fault")), "what is known of this call")
	require.Equal(t, context.DeadlineExceeded, lastfault.With(t.Context(), context.DeadlineExceeded, refused), "not the caller's")
	require.Equal(t, context.Canceled, lastfault.With(canceled(t), os.ErrDeadlineExceeded, nil))
	for ctx, ended := range map[context.Context]error{canceled(t): context.Canceled, late{t.Context()}: context.DeadlineExceeded} {
		for _, err := range []error{context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded} {
			got := lastfault.With(ctx, fmt.Errorf("ask: %w", err), refused)
			require.ErrorIs(t, got, ended)
			require.ErrorIs(t, got, syscall.ECONNREFUSED)
			require.EqualError(t, got, ended.Error()+": dial: connection refused")
		}
	}
}
