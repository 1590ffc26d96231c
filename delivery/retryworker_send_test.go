package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestWhatTheTransportDoesNotTakeComesAgain(t *testing.T) {
	for _, failure := range []error{
		delivery.ErrOutcomeUnknown, delivery.ErrRefused, delivery.ErrBlocked, delivery.ErrUnroutable, delivery.ErrClosed, errDown,
	} {
		t.Run(failure.Error(), func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.save(stored("m", delivery.StatusRetrying, time.Now()))
				f.outlet.onSend(refusing(failure))
				defer f.work(f.workerConfig())()
				wait(time.Second)
				record := f.get("m")
				require.Equal(f.t, delivery.StatusRetrying, record.Status)
				require.NotEmpty(f.t, record.ClaimedBy)
				require.Equal(f.t, 1, record.RetryCount)
				require.Equal(f.t, 1, f.outlet.calls(), "not again before the lease ends")
				f.outlet.onSend(nil)
				wait(time.Minute) // the lease
				require.Equal(f.t, map[string]int{"m": 1}, f.outlet.sent())
				require.Equal(f.t, delivery.StatusQueued, f.get("m").Status)
			})
		})
	}
}

// RunOnce returns although what it tried first comes due again before it has tried
// everything.
func TestRunOnceEndsThoughAllIsRefused(t *testing.T) {
	bubble(t, func(f *fixture) {
		const backlog = 100
		for i := range backlog {
			f.save(stored(fmt.Sprint(i), delivery.StatusRetrying, time.Now()))
		}
		f.outlet.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
			<-time.After(time.Second)
			return allOf(delivery.ErrRefused, len(batch))
		})
		config := f.workerConfig()
		config.BatchSize, config.Lease = 10, 5*time.Second
		ctx, cancel := context.WithTimeout(f.t.Context(), time.Hour)
		defer cancel()
		require.NoError(t, f.newWorker(f.records, f.outlet, config).RunOnce(ctx))
		require.Equal(t, 5, f.outlet.calls(), "for as long as the lease")
	})
}

func TestABatchIsTakenInPart(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("a", delivery.StatusRetrying, time.Now()), stored("b", delivery.StatusRetrying, time.Now()))
		f.outlet.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
			return append([]error{delivery.ErrRefused}, make([]error, len(batch)-1)...)
		})
		require.NoError(f.t, f.workOnce(f.workerConfig()))
		require.Equal(f.t, map[string]int{"b": 1}, f.outlet.sent())
		require.Equal(f.t, delivery.StatusRetrying, f.get("a").Status)
		require.Equal(f.t, delivery.StatusQueued, f.get("b").Status)
		require.Equal(f.t, 1, f.log.count("due messages not sent"))
		require.True(f.t, f.up("transport"))
	})
}

func TestAWrongNumberOfResultsIsNoConfirm(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("a", delivery.StatusRetrying, time.Now()), stored("b", delivery.StatusRetrying, time.Now()))
		f.outlet.onSend(func(context.Context, []delivery.Envelope) []error { return []error{nil} })
		err := f.workOnce(f.workerConfig())
		require.ErrorIs(f.t, err, delivery.ErrOutcomeUnknown)
		require.ErrorContains(f.t, err, "transport")
		require.Equal(f.t, delivery.StatusRetrying, f.get("a").Status)
		require.Equal(f.t, delivery.StatusRetrying, f.get("b").Status)
	})
}
