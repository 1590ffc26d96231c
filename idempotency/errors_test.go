package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency"
)

func TestUnavailable(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	refused := errors.New("connection refused")
	for name, test := range map[string]struct {
		ctx                   context.Context
		err                   error
		is                    []error
		unavailable, canceled bool
	}{
		"none":                  {ctx: t.Context()},
		"a driver's":            {ctx: t.Context(), err: refused, is: []error{refused}, unavailable: true},
		"a driver's, ended":     {ctx: cancelled, err: refused, is: []error{refused}, unavailable: true},
		"the store's timeout":   {ctx: t.Context(), err: context.DeadlineExceeded, unavailable: true},
		"the end":               {ctx: cancelled, err: context.Canceled, canceled: true},
		"a timeout at the end":  {ctx: cancelled, err: context.DeadlineExceeded, canceled: true},
		"the end and its cause": {ctx: cancelled, err: fmt.Errorf("%w: %w", context.Canceled, refused), is: []error{refused}, canceled: true},
		"lost":                  {ctx: cancelled, err: idempotency.ErrLost, is: []error{idempotency.ErrLost}},
	} {
		err := idempotency.Unavailable(test.ctx, "claim", test.err)
		for _, is := range test.is {
			require.ErrorIs(t, err, is, name)
		}
		assert.Equal(t, test.err == nil, err == nil, name)
		assert.Equal(t, test.unavailable, errors.Is(err, idempotency.ErrUnavailable), name)
		assert.Equal(t, test.canceled, errors.Is(err, context.Canceled), name)
		assert.NotErrorIs(t, err, context.DeadlineExceeded, name)
	}
}
