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

func (d *depot) acknowledger() *delivery.Acknowledger {
	d.t.Helper()
	acknowledger, err := delivery.NewAcknowledger(d.store, delivery.AcknowledgerConfig{
		DeadLetters: d.graves,
		Metrics:     d.collector,
		Logger:      slog.New(slog.NewTextHandler(d.log, nil)),
	})
	require.NoError(d.t, err)
	return acknowledger
}

// ackTimes is how many acknowledgments were timed.
func (d *depot) ackTimes() int {
	count, _ := d.collector.Value(metrics.AckSeconds)
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
				inDepot(t, func(d *depot) {
					record := stored("m", test.status, time.Time{})
					if !test.neverSent {
						record.SentAt = time.Now()
					}
					d.save(record)
					wait(time.Second)
					acknowledge := d.acknowledger().Delivered
					if call == "read" {
						acknowledge = d.acknowledger().Read
					}
					for range 2 {
						err := acknowledge(context.Background(), "m")
						require.ErrorIs(d.t, err, test.err)
						if test.err != nil {
							var failed *delivery.ResultsError
							require.ErrorAs(d.t, err, &failed)
							require.Equal(d.t, []delivery.Result{{ID: "m", Err: test.err}}, failed.Results)
						}
						require.Equal(d.t, want, d.get("m").Status, call)
						require.Zero(d.t, d.get("m").DueAt)
						wait(time.Second)
					}
				})
			}
		})
	}
}

func TestAcknowledgmentsAreOneCall(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("a", delivery.StatusSent, time.Time{}), stored("b", delivery.StatusSent, time.Time{}), stored("off", delivery.StatusCancelled, time.Time{}))
		wait(time.Second)
		err := d.acknowledger().Delivered(context.Background(), "a", "unknown", "b", "off", "a")
		require.EqualValues(d.t, 1, d.store.calls.Load())
		var failed *delivery.ResultsError
		require.ErrorAs(d.t, err, &failed)
		require.Equal(d.t, []delivery.Result{
			{ID: "a"}, {ID: "unknown", Err: delivery.ErrNotFound}, {ID: "b"}, {ID: "off", Err: delivery.ErrNotAwaited}, {ID: "a"},
		}, failed.Results)
		require.ErrorIs(d.t, err, delivery.ErrNotFound)
		require.ErrorIs(d.t, err, delivery.ErrNotAwaited)
		require.EqualError(d.t, err, "2 of 5 failed; [1] unknown: delivery: no such message; [3] off: "+delivery.ErrNotAwaited.Error())
		require.Equal(d.t, delivery.StatusDelivered, d.get("a").Status)
		require.Equal(d.t, delivery.StatusDelivered, d.get("b").Status)
		require.Equal(d.t, 2, d.ackTimes(), "each once")
		require.Equal(d.t, 2, d.log.count("msg=acknowledged"))

		wait(time.Second)
		require.NoError(d.t, d.acknowledger().Read(context.Background(), "a", "b"))
		require.Equal(d.t, 2, d.ackTimes(), "delivered before")
		require.Equal(d.t, 4, d.log.count("msg=acknowledged"))

		err = d.acknowledger().Read(context.Background(), "1", "2", "3", "4", "5")
		require.ErrorContains(d.t, err, "and 2 more")
	})
}

func TestAcknowledgmentsThatCanNotBeNoted(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusSent, time.Time{}))
		acknowledger, err := delivery.NewAcknowledger(d.store, delivery.AcknowledgerConfig{BatchSizeLimit: 2})
		require.NoError(d.t, err)
		ctx, cancel := context.WithCancel(context.Background())

		require.NoError(d.t, acknowledger.Delivered(ctx), "nothing to do")

		err = acknowledger.Delivered(ctx, "m", "")
		var invalid *delivery.InvalidError
		require.ErrorAs(d.t, err, &invalid)
		require.ErrorContains(d.t, err, "ID is empty, number 2 of 2")

		err = acknowledger.Read(ctx, "m", "m", "m")
		var many *delivery.AckLimitError
		require.ErrorAs(d.t, err, &many)
		require.Equal(d.t, delivery.AckLimitError{IDs: 3, Limit: 2}, *many)
		require.ErrorIs(d.t, err, delivery.ErrInvalid)
		require.EqualError(d.t, err, "delivery: 3 acknowledgments at once, at most 2 are allowed")

		require.Zero(d.t, d.store.calls.Load(), "nothing was asked for")

		d.store.down.Store(true)
		require.ErrorIs(d.t, acknowledger.Delivered(ctx, "m"), delivery.ErrStoreDown)
		d.store.down.Store(false)
		cancel()
		require.ErrorIs(d.t, acknowledger.Delivered(ctx, "m"), context.Canceled)
		require.Equal(d.t, delivery.StatusSent, d.get("m").Status)
	})
}

// An answer of the wrong length is nobody's.
func TestAStoreThatAnswersForOthers(t *testing.T) {
	acknowledger, err := delivery.NewAcknowledger(&silentStore{}, delivery.AcknowledgerConfig{})
	require.NoError(t, err)
	require.ErrorIs(t, acknowledger.Delivered(context.Background(), "m"), delivery.ErrStoreDown)
}

// A store that fails need not make up the progress of what it could not do.
func TestAStoreThatOnlyFails(t *testing.T) {
	acknowledger, err := delivery.NewAcknowledger(&failingStore{}, delivery.AcknowledgerConfig{DeadLetters: &graveyard{}})
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
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusSent, time.Now().Add(time.Second)))
		defer d.start(d.config())()
		wait(2 * time.Second)
		require.Equal(d.t, delivery.StatusRetrying, d.get("m").Status)
		require.NoError(d.t, d.acknowledger().Delivered(context.Background(), "m"))
		wait(time.Hour)
		require.Empty(d.t, d.road.sent())
		require.Equal(d.t, delivery.StatusDelivered, d.get("m").Status)
		require.Equal(d.t, 1, d.ackTimes())
	})
}

func TestALateAcknowledgmentResolvesTheDeadLetter(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusSent, time.Now()), stored("other", delivery.StatusSent, time.Time{}))
		config := d.config()
		config.Retry = nil
		require.NoError(d.t, d.worker(d.store, d.road, config).RunOnce(context.Background()))
		letter := d.get("m").DeadLetterID
		require.Len(d.t, d.graves.all(), 1)
		wait(time.Second)

		// The acknowledgment stands even if the letter can't be reached.
		d.graves.onTake = func() error { return errDown }
		err := d.acknowledger().Delivered(context.Background(), "other", "m", "unknown")
		require.ErrorIs(d.t, err, delivery.ErrUnresolved)
		require.ErrorIs(d.t, err, errDown)
		var failed *delivery.ResultsError
		require.ErrorAs(d.t, err, &failed)
		require.NoError(d.t, failed.Results[0].Err)
		require.ErrorIs(d.t, failed.Results[1].Err, delivery.ErrUnresolved)
		require.Equal(d.t, delivery.ErrNotFound, failed.Results[2].Err)
		require.Equal(d.t, delivery.StatusDelivered, d.get("m").Status)
		require.Len(d.t, d.graves.all(), 1)
		require.Equal(d.t, 1, d.log.count("dead letters of acknowledged messages stay"))

		// Again.
		wait(time.Second)
		d.graves.onTake = nil
		require.NoError(d.t, d.acknowledger().Delivered(context.Background(), "m", "m"))
		require.Empty(d.t, d.graves.all())
		require.Equal(d.t, []string{letter}, d.graves.taken)
		require.Equal(d.t, 2, d.ackTimes())

		// Without anybody to resolve it, it is noted all the same.
		acknowledger, err := delivery.NewAcknowledger(d.store, delivery.AcknowledgerConfig{})
		require.NoError(d.t, err)
		require.NoError(d.t, acknowledger.Read(context.Background(), "m"))
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
