package delivery

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type testKey struct{}

// TestDeadlineContext compares with the standard library's contexts, asked
// before and after somebody began to wait.
func TestDeadlineContext(t *testing.T) {
	errCause := errors.New("cause")
	for name, test := range map[string]struct {
		do         func(ctx *lazyContext, cancelParent context.CancelCauseFunc)
		err, cause error
	}{
		"nothing":           {func(*lazyContext, context.CancelCauseFunc) {}, nil, nil},
		"deadline":          {func(*lazyContext, context.CancelCauseFunc) { time.Sleep(time.Minute) }, context.DeadlineExceeded, context.DeadlineExceeded},
		"ended":             {func(c *lazyContext, _ context.CancelCauseFunc) { c.end() }, context.Canceled, context.Canceled},
		"aborted":           {func(c *lazyContext, _ context.CancelCauseFunc) { c.abort(errCause) }, context.Canceled, errCause},
		"aborted, ended":    {func(c *lazyContext, _ context.CancelCauseFunc) { c.abort(errCause); c.end() }, context.Canceled, errCause},
		"parent cancelled":  {func(_ *lazyContext, cancel context.CancelCauseFunc) { cancel(errCause) }, context.Canceled, errCause},
		"aborted after end": {func(c *lazyContext, _ context.CancelCauseFunc) { c.end(); c.abort(errCause) }, context.Canceled, context.Canceled},
	} {
		for _, waited := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancel := context.WithCancelCause(context.WithValue(context.Background(), testKey{}, "value"))
					defer cancel(nil)
					ctx := within(parent, time.Now(), time.Minute)
					defer ctx.end()
					if waited {
						select {
						case <-ctx.Done():
							t.Fatal("done too early")
						default:
						}
					}
					test.do(ctx, cancel)
					synctest.Wait()
					assert.Equal(t, test.err, ctx.Err())
					assert.Equal(t, test.cause, context.Cause(ctx))
					assert.Equal(t, "value", ctx.Value(testKey{}))
					select {
					case <-ctx.Done():
						require.Error(t, test.err)
					default:
						require.NoError(t, test.err)
					}
					assert.Equal(t, test.err, ctx.Err(), "the same after waiting")
					child, stop := context.WithCancel(ctx)
					defer stop()
					synctest.Wait()
					assert.Equal(t, test.err, child.Err(), "and for a child")
				})
			})
		}
	}
}

func TestDeadlineContextTellsTheEarlierDeadline(t *testing.T) {
	parent, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	earlier, _ := parent.Deadline()
	got, ok := within(parent, time.Now(), time.Hour).Deadline()
	assert.True(t, ok)
	assert.Equal(t, earlier, got)
	got, _ = within(t.Context(), time.Now(), time.Hour).Deadline()
	assert.Greater(t, time.Until(got), 59*time.Minute)
}

func TestDeadlineContextCostsOneAllocationUnlessWaitedOn(t *testing.T) {
	parent := t.Context()
	var err error
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		ctx := within(parent, time.Now(), time.Hour)
		err = ctx.Err()
		ctx.end()
	}), 1.0)
	require.NoError(t, err)
}
