package retry

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostError asks for a wait as an error of the host's own may.
type hostError struct {
	error
	wait time.Duration
}

func (e hostError) RetryDelay() (time.Duration, bool) { return e.wait, true }

func TestMarksKeepTheError(t *testing.T) {
	for name, marked := range map[string]error{
		"permanent": Permanent(fmt.Errorf("read: %w", io.EOF)),
		"after":     After(time.Second, fmt.Errorf("read: %w", io.EOF)),
		"later":     Later(time.Second, fmt.Errorf("read: %w", io.EOF)),
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualError(t, marked, "read: EOF")
			require.ErrorIs(t, marked, io.EOF)
			assert.NotEqual(t, io.EOF, marked)
		})
	}
	require.NoError(t, Permanent(nil))
	require.NoError(t, After(time.Second, nil))
	require.NoError(t, Later(time.Second, nil))
}

func TestDelayOf(t *testing.T) {
	plain := errors.New("plain")
	minute := After(time.Minute, plain)
	for name, test := range map[string]struct {
		err  error
		want time.Duration
		ok   bool
	}{
		"nil":                    {nil, 0, false},
		"plain":                  {plain, 0, false},
		"after":                  {minute, time.Minute, true},
		"after zero":             {After(0, plain), 0, true},
		"after negative":         {After(-time.Second, plain), 0, true},
		"later":                  {Later(time.Hour, minute), time.Hour, true},
		"later negative":         {Later(-time.Second, plain), 0, true},
		"permanent":              {Permanent(plain), 0, false},
		"through permanent":      {Permanent(minute), time.Minute, true},
		"through %w":             {fmt.Errorf("x: %w", minute), time.Minute, true},
		"through join":           {errors.Join(plain, minute), time.Minute, true},
		"through all":            {fmt.Errorf("%w, %w", plain, errors.Join(plain, fmt.Errorf("x: %w", minute))), time.Minute, true},
		"join of none":           {errors.Join(plain, plain), 0, false},
		"first of joined":        {errors.Join(minute, After(time.Hour, plain)), time.Minute, true},
		"outermost":              {After(time.Hour, minute), time.Hour, true},
		"HTTP":                   {&HTTPError{Status: 503, RetryAfter: time.Minute, HasRetryAfter: true}, time.Minute, true},
		"HTTP asks for none":     {&HTTPError{Status: 503, HasRetryAfter: true}, 0, true},
		"HTTP doesn't ask":       {&HTTPError{Status: 503}, 0, false},
		"HTTP nil":               {(*HTTPError)(nil), 0, false},
		"beside HTTP":            {errors.Join(&HTTPError{Status: 503}, minute), time.Minute, true},
		"permanent HTTP":         {Permanent(&HTTPError{Status: 503, RetryAfter: 1, HasRetryAfter: true}), 1, true},
		"host's own":             {fmt.Errorf("x: %w", hostError{plain, time.Minute}), time.Minute, true},
		"host's own, negative":   {hostError{plain, -1}, 0, true},
		"wrapper around nothing": {&emptyWrapper{}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			wait, ok := DelayOf(test.err)
			assert.Equal(t, test.ok, ok)
			assert.Equal(t, test.want, wait)
		})
	}
}

type emptyWrapper struct{}

func (*emptyWrapper) Error() string { return "empty" }
func (*emptyWrapper) Unwrap() error { return nil }
