package sqlstore

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// lateContext has a deadline that is over, and has not noticed that yet.
type lateContext struct{ context.Context }

func (lateContext) Deadline() (time.Time, bool) { return time.Now().Add(-time.Nanosecond), true }

// The network may notice a deadline before the context does.
func TestDeadlineThatTheNetworkNoticesFirst(t *testing.T) {
	late := lateContext{t.Context()}
	require.Equal(t, context.DeadlineExceeded, asDatabaseError(late, "ping", os.ErrDeadlineExceeded, nil))
	require.Equal(t, noAnswer, causeOf(asNoAnswer(late, time.Second, os.ErrDeadlineExceeded)))
	require.ErrorIs(t, asDatabaseError(t.Context(), "ping", errors.New("odd"), nil), delivery.ErrStoreDown)
	require.Equal(t, unknown, causeOf(asNoAnswer(t.Context(), time.Second, errors.New("odd"))))
}
