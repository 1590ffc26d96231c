package delivery_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestWhatTheTransportNeverTakesIsADeadLetter(t *testing.T) {
	for _, failure := range []error{
		&delivery.InvalidError{Field: "Type", Problem: "is odd"},
		&delivery.TooLargeError{Field: "Body", Size: 2, Limit: 1},
	} {
		t.Run(failure.Error(), func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.save(stored("bad", delivery.StatusRetrying, time.Now()), stored("good", delivery.StatusRetrying, time.Now()))
				f.outlet.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
					errs := make([]error, len(batch))
					for i := range batch {
						if batch[i].ID == "bad" {
							errs[i] = failure
						}
					}
					return errs
				})
				require.NoError(f.t, f.workOnce(f.workerConfig()))
				require.Equal(f.t, delivery.StatusQueued, f.get("good").Status)
				bad := f.get("bad")
				require.Equal(f.t, delivery.StatusFailed, bad.Status)
				require.Equal(f.t, 1, bad.RetryCount, "no attempt was made")
				require.Equal(f.t, failure.Error(), bad.FailureReason())
				letters := f.sink.all()
				require.Len(f.t, letters, 1)
				require.Equal(f.t, bad.DeadLetterID, letters[0].ID)
				require.Equal(f.t, delivery.ReasonPermanent, letters[0].Reason)
				require.Equal(f.t, "memory", letters[0].Source)
				require.Equal(f.t, bad.Envelope(), letters[0].Envelope)
				require.Equal(f.t, 1, f.log.count("dead-lettered"))
				require.True(f.t, f.up("transport"), "it answered")
			})
		})
	}
}

// Something happens between the dead letter and the record's update.
func TestADeadLetterIsTakenBack(t *testing.T) {
	byItsUser := func(f *fixture) {
		f.update(acknowledged("m"))
	}
	noResolver := func(f *fixture, config *delivery.RetryWorkerConfig) {
		config.DeadLetters = struct{ delivery.DeadLetterer }{f.sink}
	}
	for name, test := range map[string]struct {
		meanwhile func(f *fixture)
		config    func(f *fixture, config *delivery.RetryWorkerConfig)
		failures  int64 // of resolving
		letters   int
		status    delivery.Status
	}{
		"acknowledged":                           {meanwhile: byItsUser, status: delivery.StatusDelivered},
		"acknowledged, resolving fails at first": {meanwhile: byItsUser, failures: 3, status: delivery.StatusDelivered},
		"acknowledged, resolving fails for good": {meanwhile: byItsUser, failures: 1e6, status: delivery.StatusDelivered, letters: 1},
		"acknowledged, no resolver":              {meanwhile: byItsUser, config: noResolver, status: delivery.StatusDelivered, letters: 1},
		"claimed by another worker, whose letter is the same": {
			meanwhile: func(f *fixture) {
				claim := delivery.Claim{Queue: "memory", Status: delivery.StatusSent, Token: "other", Now: time.Now().Add(time.Hour), Lease: time.Hour, Limit: 1}
				_, err := f.records.Store.Claim(context.Background(), claim)
				require.NoError(f.t, err)
			},
			status: delivery.StatusSent, letters: 1,
		},
		"given up by another worker": {
			meanwhile: func(f *fixture) {
				record := f.get("m")
				update := failedAttempt(&record, delivery.StatusFailed, time.Time{})
				update.At, update.DeadLetterID = update.At.Add(time.Millisecond), f.sink.all()[0].ID
				f.update(update)
			},
			status: delivery.StatusFailed, letters: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.save(stored("m", delivery.StatusSent, time.Now()))
				config := f.workerConfig()
				config.Retry = nil
				if test.config != nil {
					test.config(f, &config)
				}
				f.sink.onPut = func() { test.meanwhile(f) }
				failures := atomic.Int64{}
				f.sink.onResolve = func() error {
					if failures.Add(1) <= test.failures {
						return errDown
					}
					return nil
				}
				require.NoError(f.t, f.workOnce(config))
				require.Len(f.t, f.sink.all(), test.letters)
				require.Equal(f.t, test.status, f.get("m").Status)
				require.Zero(f.t, f.ackTimeouts())
				stays := 0
				if test.letters == 1 && test.status == delivery.StatusDelivered {
					stays = 1
				}
				require.Equal(f.t, stays, f.log.count("dead letters of acknowledged messages stay"))
			})
		})
	}
}

// A letter that can't be taken back for now holds up nothing else, and is taken
// back when that works again.
func TestTakingBackHoldsUpNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.workerConfig()
		config.Retry, config.Lease = nil, 2*time.Hour
		f.save(stored("m", delivery.StatusSent, time.Now()))
		f.sink.onPut = func() {
			f.update(acknowledged("m"))
		}
		var down atomic.Bool
		down.Store(true)
		f.sink.onResolve = func() error {
			if down.Load() {
				return errDown
			}
			return nil
		}
		stop := f.work(config)
		wait(time.Minute)
		f.save(stored("retry", delivery.StatusRetrying, time.Now()))
		wait(time.Second)
		require.Equal(f.t, delivery.StatusQueued, f.get("retry").Status, "other tasks go on")
		require.Len(f.t, f.sink.all(), 1)
		wait(time.Hour)
		require.Equal(f.t, 1, f.log.count("messages not taken back"))
		down.Store(false)
		wait(time.Minute)
		require.Empty(f.t, f.sink.all())
		require.Zero(f.t, f.log.count("dead letters of acknowledged messages stay"))
		stop()
	})
}

// A worker that dies between the dead letter and its record leaves a stale letter,
// if the message is acknowledged before the next worker comes.
func TestAReplayOfAStaleLetterSendsNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		require.Empty(t, records.Save(f.t.Context(), stored("m", delivery.StatusSent, time.Now())))
		dying := dying(records)
		worker, err := delivery.NewRetryWorker(dying, f.transport, delivery.RetryWorkerConfig{DeadLetters: f.sink})
		require.NoError(t, err)
		require.ErrorIs(t, worker.RunOnce(f.t.Context()), delivery.ErrStoreDown)
		letter := f.sink.only(t)
		acknowledger, err := delivery.NewAcknowledger(records, delivery.AcknowledgerConfig{})
		require.NoError(t, err)
		require.NoError(t, acknowledger.Delivered(f.t.Context(), "m"))

		replay := letter.Envelope
		replay.Generation, replay.Attempt = replay.Generation+1, 0
		require.NoError(t, f.publisher.Forward(f.t.Context(), replay))
		wait(time.Minute)
		f.empty()
		require.Equal(t, delivery.StatusDelivered, records.status(t, "m"))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}
