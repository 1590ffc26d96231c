package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/metrics"
)

func (f *fixture) acknowledger() *delivery.Acknowledger {
	f.t.Helper()
	acknowledger, err := delivery.NewAcknowledger(f.records, delivery.AcknowledgerConfig{
		DeadLetters: f.sink,
		Metrics:     f.collector,
		Logger:      slog.New(slog.NewTextHandler(f.log, nil)),
	})
	require.NoError(f.t, err)
	return acknowledger
}

// ackTimes is how many acknowledgments were timed.
func (f *fixture) ackTimes() int {
	count, _ := f.collector.Value(metrics.AckSeconds)
	return int(count)
}

func TestNewAcknowledgerTellsEveryFault(t *testing.T) {
	_, err := delivery.NewAcknowledger(nil, delivery.AcknowledgerConfig{BatchSizeLimit: -1})
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorContains(t, err, "store is nil")
	require.ErrorContains(t, err, "AcknowledgerConfig.BatchSizeLimit is -1, want at least 1")
	_, err = delivery.NewAcknowledger(memory.NewStore(memory.StoreConfig{MaxRecords: -1}), delivery.AcknowledgerConfig{})
	require.ErrorContains(t, err, "MaxRecords")
	for _, acknowledger := range []*delivery.Acknowledger{nil, {}} {
		require.ErrorIs(t, acknowledger.Delivered(context.Background(), "m"), delivery.ErrConfig)
		require.ErrorIs(t, acknowledger.Read(context.Background(), "m"), delivery.ErrConfig)
	}
}

func TestAcknowledge(t *testing.T) {
	for name, test := range map[string]struct {
		status    delivery.Status
		neverSent bool
		err       error
		delivered delivery.Status // after Delivered
		read      delivery.Status // after Read
	}{
		"sent":                   {status: delivery.StatusSent, delivered: delivery.StatusDelivered, read: delivery.StatusRead},
		"before it is sent":      {status: delivery.StatusQueued, neverSent: true, delivered: delivery.StatusDelivered, read: delivery.StatusRead},
		"before it is queued":    {status: delivery.StatusPending, neverSent: true, delivered: delivery.StatusDelivered, read: delivery.StatusRead},
		"while a retry waits":    {status: delivery.StatusRetrying, delivered: delivery.StatusDelivered, read: delivery.StatusRead},
		"after it was given up":  {status: delivery.StatusFailed, delivered: delivery.StatusDelivered, read: delivery.StatusRead},
		"again":                  {status: delivery.StatusDelivered, delivered: delivery.StatusDelivered, read: delivery.StatusRead},
		"after read":             {status: delivery.StatusRead, delivered: delivery.StatusRead, read: delivery.StatusRead},
		"failed, and never sent": {status: delivery.StatusFailed, neverSent: true, err: delivery.ErrNotAwaited, delivered: delivery.StatusFailed, read: delivery.StatusFailed},
		"cancelled":              {status: delivery.StatusCancelled, neverSent: true, err: delivery.ErrNotAwaited, delivered: delivery.StatusCancelled, read: delivery.StatusCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			for call, want := range map[string]delivery.Status{"delivered": test.delivered, "read": test.read} {
				bubble(t, func(f *fixture) {
					record := stored("m", test.status, time.Time{})
					if !test.neverSent {
						record.SentAt = time.Now()
					}
					f.save(record)
					wait(time.Second)
					acknowledge := f.acknowledger().Delivered
					if call == "read" {
						acknowledge = f.acknowledger().Read
					}
					for range 2 {
						err := acknowledge(context.Background(), "m")
						require.ErrorIs(f.t, err, test.err)
						if test.err != nil {
							var failed *delivery.ResultsError
							require.ErrorAs(f.t, err, &failed)
							require.Equal(f.t, []delivery.Result{{ID: "m", Err: test.err}}, failed.Results)
						}
						require.Equal(f.t, want, f.get("m").Status, call)
						require.Zero(f.t, f.get("m").DueAt)
						wait(time.Second)
					}
				})
			}
		})
	}
}

func TestAcknowledgmentsAreOneCall(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("a", delivery.StatusSent, time.Time{}), stored("b", delivery.StatusSent, time.Time{}), stored("off", delivery.StatusCancelled, time.Time{}))
		wait(time.Second)
		err := f.acknowledger().Delivered(context.Background(), "a", "unknown", "b", "off", "a")
		require.EqualValues(f.t, 1, f.records.calls.Load())
		var failed *delivery.ResultsError
		require.ErrorAs(f.t, err, &failed)
		require.Equal(f.t, []delivery.Result{
			{ID: "a"}, {ID: "unknown", Err: delivery.ErrNotFound}, {ID: "b"}, {ID: "off", Err: delivery.ErrNotAwaited}, {ID: "a"},
		}, failed.Results)
		require.ErrorIs(f.t, err, delivery.ErrNotFound)
		require.ErrorIs(f.t, err, delivery.ErrNotAwaited)
		require.EqualError(f.t, err, "2 of 5 failed; [1] unknown: delivery: no such message; [3] off: "+delivery.ErrNotAwaited.Error())
		require.Equal(f.t, delivery.StatusDelivered, f.get("a").Status)
		require.Equal(f.t, delivery.StatusDelivered, f.get("b").Status)
		require.Equal(f.t, 2, f.ackTimes(), "each once")
		require.Equal(f.t, 2, f.log.count(`msg="message acknowledged"`))

		wait(time.Second)
		require.NoError(f.t, f.acknowledger().Read(context.Background(), "a", "b"))
		require.Equal(f.t, 2, f.ackTimes(), "delivered before")
		require.Equal(f.t, 4, f.log.count(`msg="message acknowledged"`))

		err = f.acknowledger().Read(context.Background(), "1", "2", "3", "4", "5")
		require.ErrorContains(f.t, err, "and 2 more")
	})
}

func TestAcknowledgmentsThatCanNotBeRecorded(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusSent, time.Time{}))
		acknowledger, err := delivery.NewAcknowledger(f.records, delivery.AcknowledgerConfig{BatchSizeLimit: 2})
		require.NoError(f.t, err)
		ctx, cancel := context.WithCancel(context.Background())

		require.NoError(f.t, acknowledger.Delivered(ctx), "nothing to do")

		err = acknowledger.Delivered(ctx, "m", "")
		var invalid *delivery.InvalidError
		require.ErrorAs(f.t, err, &invalid)
		require.ErrorContains(f.t, err, "ID is empty, number 2 of 2")

		err = acknowledger.Read(ctx, "m", "m", "m")
		var many *delivery.AckLimitError
		require.ErrorAs(f.t, err, &many)
		require.Equal(f.t, delivery.AckLimitError{IDs: 3, Limit: 2}, *many)
		require.ErrorIs(f.t, err, delivery.ErrInvalid)
		require.EqualError(f.t, err, "delivery: 3 acknowledgments at once, at most 2 are allowed")

		require.Zero(f.t, f.records.calls.Load(), "nothing was asked for")

		f.records.down.Store(true)
		require.ErrorIs(f.t, acknowledger.Delivered(ctx, "m"), delivery.ErrStoreDown)
		f.records.down.Store(false)
		cancel()
		require.ErrorIs(f.t, acknowledger.Delivered(ctx, "m"), context.Canceled)
		require.Equal(f.t, delivery.StatusSent, f.get("m").Status)
	})
}

// An answer for the wrong number of messages is nobody's.
func TestAStoreThatAnswersForOthers(t *testing.T) {
	acknowledger, err := delivery.NewAcknowledger(&silentStore{}, delivery.AcknowledgerConfig{})
	require.NoError(t, err)
	require.ErrorIs(t, acknowledger.Delivered(context.Background(), "m"), delivery.ErrStoreDown)
}

// A store that fails need not make up the progress of what it could not do.
func TestAStoreThatOnlyFails(t *testing.T) {
	acknowledger, err := delivery.NewAcknowledger(&failingStore{}, delivery.AcknowledgerConfig{DeadLetters: newDeadLetters()})
	require.NoError(t, err)
	err = acknowledger.Delivered(context.Background(), "a", "b")
	require.ErrorIs(t, err, errDown)
	var failed *delivery.ResultsError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, []delivery.Result{{ID: "a", Err: errDown}, {ID: "b", Err: errDown}}, failed.Results)
}

type failingStore struct{ delivery.Store }

func (*failingStore) Update(_ context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	return nil, allOf(errDown, len(updates))
}

type silentStore struct{ delivery.Store }

func (*silentStore) Update(context.Context, ...delivery.Update) ([]delivery.Progress, []error) {
	return nil, nil
}

func TestALateAcknowledgmentCancelsTheRetry(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusSent, time.Now().Add(time.Second)))
		defer f.work(f.workerConfig())()
		wait(2 * time.Second)
		require.Equal(f.t, delivery.StatusRetrying, f.get("m").Status)
		require.NoError(f.t, f.acknowledger().Delivered(context.Background(), "m"))
		wait(time.Hour)
		require.Empty(f.t, f.outlet.sent())
		require.Equal(f.t, delivery.StatusDelivered, f.get("m").Status)
		require.Equal(f.t, 1, f.ackTimes())
	})
}

func TestALateAcknowledgmentResolvesTheDeadLetter(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusSent, time.Now()), stored("other", delivery.StatusSent, time.Time{}))
		config := f.workerConfig()
		config.Retry = nil
		require.NoError(f.t, f.workOnce(config))
		letter := f.get("m").DeadLetterID
		require.Len(f.t, f.sink.all(), 1)
		wait(time.Second)

		// The acknowledgment stands even if the letter can't be reached.
		f.sink.onResolve = func() error { return errDown }
		err := f.acknowledger().Delivered(context.Background(), "other", "m", "unknown")
		require.ErrorIs(f.t, err, delivery.ErrUnresolved)
		require.ErrorIs(f.t, err, errDown)
		var failed *delivery.ResultsError
		require.ErrorAs(f.t, err, &failed)
		require.NoError(f.t, failed.Results[0].Err)
		require.ErrorIs(f.t, failed.Results[1].Err, delivery.ErrUnresolved)
		require.Equal(f.t, delivery.ErrNotFound, failed.Results[2].Err)
		require.Equal(f.t, delivery.StatusDelivered, f.get("m").Status)
		require.Len(f.t, f.sink.all(), 1)
		require.Equal(f.t, 1, f.log.count("dead letters of acknowledged messages stay"))

		// Again.
		wait(time.Second)
		f.sink.onResolve = nil
		require.NoError(f.t, f.acknowledger().Delivered(context.Background(), "m", "m"))
		require.Empty(f.t, f.sink.all())
		require.Equal(f.t, []string{letter}, f.sink.resolved)
		require.Equal(f.t, 2, f.ackTimes())

		// Without anybody to resolve it, it is recorded all the same.
		acknowledger, err := delivery.NewAcknowledger(f.records, delivery.AcknowledgerConfig{})
		require.NoError(f.t, err)
		require.NoError(f.t, acknowledger.Read(context.Background(), "m"))
	})
}

func TestResultsErrorMatchesAnyOfItsErrors(t *testing.T) {
	late := &delivery.LateError{ID: "m"}
	err := fmt.Errorf("wrapped: %w", &delivery.ResultsError{Results: []delivery.Result{{ID: "a"}, {ID: "m", Err: late}}})
	require.ErrorIs(t, err, delivery.ErrLate)
	found, ok := errors.AsType[*delivery.LateError](err)
	require.True(t, ok)
	assert.Same(t, late, found)
	assert.NotErrorIs(t, err, delivery.ErrNotFound)
}
