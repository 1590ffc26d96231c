package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/retry"
)

func TestNewRetryWorkerTellsEveryFault(t *testing.T) {
	_, err := delivery.NewRetryWorker(nil, nil, delivery.RetryWorkerConfig{
		ScanInterval: -1, BatchSize: delivery.MaxClaim + 1, Lease: time.Millisecond, Retry: retry.Exponential{Base: -1},
	})
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorIs(t, err, retry.ErrConfig)
	for _, fault := range []string{
		"store is nil", "transport is nil", "RetryWorkerConfig.Name is empty",
		"ScanInterval is -1ns, want more than 0", "BatchSize is 10001, want 1 to 10000",
		"Lease is 1ms, want at least 1s", "Retry: ", "DeadLetters is nil",
	} {
		require.ErrorContains(t, err, fault)
	}

	_, err = delivery.NewRetryWorker(memory.NewStore(memory.StoreConfig{MaxRecords: -1}), memory.New(memory.Config{MaxMessages: -1}), delivery.RetryWorkerConfig{BatchSize: -1})
	require.ErrorContains(t, err, "MaxRecords")
	require.ErrorContains(t, err, "MaxMessages")
	require.ErrorContains(t, err, "BatchSize is -1")

	for _, worker := range []*delivery.RetryWorker{nil, {}} {
		require.ErrorIs(t, worker.Run(context.Background()), delivery.ErrConfig)
		require.ErrorIs(t, worker.RunOnce(context.Background()), delivery.ErrConfig)
	}
}

func TestWhatIsDueIsSent(t *testing.T) {
	claimedBy := func(record delivery.Record, token string) delivery.Record {
		record.ClaimedBy = token
		return record
	}
	scheduled := func(record delivery.Record) delivery.Record {
		record.NotBefore = record.DueAt
		return record
	}
	for name, test := range map[string]struct {
		record func(now time.Time) delivery.Record
		sent   bool
	}{
		"retry": {func(now time.Time) delivery.Record { return stored("m", delivery.StatusRetrying, now) }, true},
		"retry that comes later": {func(now time.Time) delivery.Record {
			return stored("m", delivery.StatusRetrying, now.Add(time.Millisecond))
		}, false},
		"retry of a worker that died": {func(now time.Time) delivery.Record {
			return claimedBy(stored("m", delivery.StatusRetrying, now), "dead")
		}, true},
		"saved by a publisher that died": {func(now time.Time) delivery.Record {
			return claimedBy(stored("m", delivery.StatusPending, now), "dead")
		}, true},
		"saved by a publisher at work": {func(now time.Time) delivery.Record {
			return claimedBy(stored("m", delivery.StatusPending, now.Add(time.Second)), "alive")
		}, false},
		"scheduled": {func(now time.Time) delivery.Record { return scheduled(stored("m", delivery.StatusPending, now)) }, true},
		"left by a process that died": {func(now time.Time) delivery.Record {
			return claimedBy(stored("m", delivery.StatusQueued, now), "dead session")
		}, true},
		"in the transport": {func(time.Time) delivery.Record { return stored("m", delivery.StatusQueued, time.Time{}) }, false},
		"delivered":        {func(time.Time) delivery.Record { return stored("m", delivery.StatusDelivered, time.Time{}) }, false},
		"awaited":          {func(now time.Time) delivery.Record { return stored("m", delivery.StatusSent, now.Add(time.Second)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inDepot(t, func(d *depot) {
				record := test.record(time.Now())
				record.Body, record.Headers, record.Generation = []byte("hello"), map[string]string{"k": "v"}, 2
				d.save(record)
				before := d.get("m")
				require.NoError(d.t, d.worker(d.store, d.road, d.config()).RunOnce(context.Background()))
				after := d.get("m")
				if !test.sent {
					require.Empty(d.t, d.road.sent())
					require.Equal(d.t, before, after)
					return
				}
				require.Equal(d.t, map[string]int{"m": 1}, d.road.sent())
				require.Equal(d.t, before.Envelope(), d.road.envelopes()[0])
				require.Equal(d.t, delivery.StatusQueued, after.Status)
				require.Zero(d.t, after.DueAt)
				require.Empty(d.t, after.ClaimedBy)
				require.Equal(d.t, before.RetryCount, after.RetryCount)
			})
		})
	}
}

func TestWorkerWakesInTime(t *testing.T) {
	for name, test := range map[string]struct {
		late time.Duration // at most
		wrap func(d *depot) delivery.Store
	}{
		"told by the store": {25 * time.Millisecond, func(d *depot) delivery.Store { return d.store }},
		"on its own":        {30 * time.Second, func(d *depot) delivery.Store { return struct{ delivery.Store }{d.store} }},
	} {
		t.Run(name, func(t *testing.T) {
			inDepot(t, func(d *depot) {
				begin := time.Now()
				d.save(stored("known before", delivery.StatusRetrying, begin.Add(7*time.Second)))
				defer d.run(d.worker(test.wrap(d), d.road, d.config()))()
				wait(time.Second)
				d.save(stored("saved since", delivery.StatusRetrying, begin.Add(2500*time.Millisecond)))
				d.save(stored("due at once", delivery.StatusPending, begin.Add(time.Second)))
				wait(time.Minute)
				for i, envelope := range d.road.envelopes() {
					late := d.road.times[i].Sub(d.get(envelope.ID).CreatedAt)
					switch envelope.ID {
					case "known before":
						assert.InDelta(d.t, 7, late.Seconds(), 0.025)
					case "saved since":
						assert.InDelta(d.t, 1.5, late.Seconds(), test.late.Seconds())
					case "due at once":
						assert.LessOrEqual(d.t, late, test.late)
					}
				}
				require.Len(d.t, d.road.envelopes(), 3)
			})
		})
	}
}

// A full batch is followed by the next at once, and no kind waits for another's
// backlog.
func TestABacklogIsWorkedOffFairly(t *testing.T) {
	inDepot(t, func(d *depot) {
		const backlog = 1000
		for i := range backlog {
			d.save(stored(fmt.Sprint("retry-", i), delivery.StatusRetrying, time.Now()))
		}
		d.save(stored("pending", delivery.StatusPending, time.Now()), stored("overdue", delivery.StatusSent, time.Now()))
		config := d.config()
		config.BatchSize = 10
		begin := time.Now()
		stop := d.start(config)
		wait(0)
		stop()
		require.Len(d.t, d.road.sent(), backlog+1)
		require.Zero(d.t, time.Since(begin), "all at once")
		require.Equal(d.t, "pending", d.road.envelopes()[10].ID, "right after the first batch of retries")
		require.Equal(d.t, delivery.StatusRetrying, d.get("overdue").Status)
		require.Equal(d.t, backlog/10+1, d.road.calls())
	})
}

func TestWhatTheTransportDoesNotTakeComesAgain(t *testing.T) {
	for _, failure := range []error{
		delivery.ErrOutcomeUnknown, delivery.ErrRefused, delivery.ErrBlocked, delivery.ErrUnroutable, delivery.ErrClosed, errDown,
	} {
		t.Run(failure.Error(), func(t *testing.T) {
			inDepot(t, func(d *depot) {
				d.save(stored("m", delivery.StatusRetrying, time.Now()))
				d.road.onSend(refusing(failure))
				defer d.start(d.config())()
				wait(time.Second)
				record := d.get("m")
				require.Equal(d.t, delivery.StatusRetrying, record.Status)
				require.NotEmpty(d.t, record.ClaimedBy)
				require.Equal(d.t, 1, record.RetryCount)
				require.Equal(d.t, 1, d.road.calls(), "not again before the lease ends")
				d.road.onSend(nil)
				wait(time.Minute) // the lease
				require.Equal(d.t, map[string]int{"m": 1}, d.road.sent())
				require.Equal(d.t, delivery.StatusQueued, d.get("m").Status)
			})
		})
	}
}

func TestWhatTheTransportNeverTakesIsADeadLetter(t *testing.T) {
	for _, failure := range []error{
		&delivery.InvalidError{Field: "Type", Problem: "is odd"},
		&delivery.TooLargeError{Field: "Body", Size: 2, Limit: 1},
	} {
		t.Run(failure.Error(), func(t *testing.T) {
			inDepot(t, func(d *depot) {
				d.save(stored("bad", delivery.StatusRetrying, time.Now()), stored("good", delivery.StatusRetrying, time.Now()))
				d.road.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
					errs := make([]error, len(batch))
					for i := range batch {
						if batch[i].ID == "bad" {
							errs[i] = failure
						}
					}
					return errs
				})
				require.NoError(d.t, d.worker(d.store, d.road, d.config()).RunOnce(context.Background()))
				require.Equal(d.t, delivery.StatusQueued, d.get("good").Status)
				bad := d.get("bad")
				require.Equal(d.t, delivery.StatusFailed, bad.Status)
				require.Equal(d.t, 1, bad.RetryCount, "no attempt was made")
				require.Equal(d.t, failure.Error(), bad.FailureReason())
				letters := d.graves.all()
				require.Len(d.t, letters, 1)
				require.Equal(d.t, bad.DeadLetterID, letters[0].ID)
				require.Equal(d.t, delivery.ReasonPermanent, letters[0].Reason)
				require.Equal(d.t, "road", letters[0].Source)
				require.Equal(d.t, bad.Envelope(), letters[0].Envelope)
				require.Equal(d.t, 1, d.log.count("dead-lettered"))
				require.True(d.t, d.up("transport"), "it answered")
			})
		})
	}
}

func TestABatchIsTakenInPart(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("a", delivery.StatusRetrying, time.Now()), stored("b", delivery.StatusRetrying, time.Now()))
		d.road.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
			return append([]error{delivery.ErrRefused}, make([]error, len(batch)-1)...)
		})
		require.NoError(d.t, d.worker(d.store, d.road, d.config()).RunOnce(context.Background()))
		require.Equal(d.t, map[string]int{"b": 1}, d.road.sent())
		require.Equal(d.t, delivery.StatusRetrying, d.get("a").Status)
		require.Equal(d.t, delivery.StatusQueued, d.get("b").Status)
		require.Equal(d.t, 1, d.log.count("not taken"))
		require.True(d.t, d.up("transport"))
	})
}

func TestAWrongNumberOfResultsIsNoConfirm(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("a", delivery.StatusRetrying, time.Now()), stored("b", delivery.StatusRetrying, time.Now()))
		d.road.onSend(func(context.Context, []delivery.Envelope) []error { return []error{nil} })
		err := d.worker(d.store, d.road, d.config()).RunOnce(context.Background())
		require.ErrorIs(d.t, err, delivery.ErrOutcomeUnknown)
		require.ErrorContains(d.t, err, "transport")
		require.Equal(d.t, delivery.StatusRetrying, d.get("a").Status)
		require.Equal(d.t, delivery.StatusRetrying, d.get("b").Status)
	})
}

func TestRunOnceTellsOfOutages(t *testing.T) {
	inDepot(t, func(d *depot) {
		worker := d.worker(d.store, d.road, d.config())
		d.save(stored("m", delivery.StatusRetrying, time.Now()), stored("overdue", delivery.StatusSent, time.Now()))
		d.store.down.Store(true)
		require.ErrorIs(d.t, worker.RunOnce(context.Background()), delivery.ErrStoreDown)
		d.store.down.Store(false)

		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(d.t, worker.RunOnce(ended), context.Canceled)

		config := d.config()
		config.Retry = nil
		d.graves.down.Store(true)
		err := d.worker(d.store, d.road, config).RunOnce(context.Background())
		require.ErrorIs(d.t, err, errDown)
		require.ErrorContains(d.t, err, "dead_letters")
		require.Equal(d.t, delivery.StatusQueued, d.get("m").Status)
		require.Equal(d.t, delivery.StatusSent, d.get("overdue").Status)
	})
}

// What is under way when Run is to end is finished, within bounds.
func TestRunEndsWhenWhatIsUnderWayIsSettled(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusRetrying, time.Now()))
		d.road.onSend(func(context.Context, []delivery.Envelope) []error {
			<-time.After(3 * time.Second)
			return nil
		})
		stop := d.start(d.config())
		wait(time.Second)
		begin := time.Now()
		stop()
		require.Equal(d.t, 2*time.Second, time.Since(begin))
		require.Equal(d.t, delivery.StatusQueued, d.get("m").Status)
	})
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusRetrying, time.Now()))
		d.road.onSend(func(ctx context.Context, batch []delivery.Envelope) []error {
			<-ctx.Done()
			return slices.Repeat([]error{delivery.ErrOutcomeUnknown}, len(batch))
		})
		stop := d.start(d.config())
		wait(time.Second)
		begin := time.Now()
		stop()
		require.Equal(d.t, 10*time.Second, time.Since(begin))
		require.Equal(d.t, delivery.StatusRetrying, d.get("m").Status)
		require.Zero(d.t, d.log.count("is down"), "that was us")
	})
}

// A claim that is under way when Run ends is carried out, and so is what was
// claimed.
func TestRunEndsWithNothingClaimed(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusRetrying, time.Now()), stored("later", delivery.StatusPending, time.Now()))
		stop := d.run(d.worker(&distantStore{d.store}, d.road, d.config()))
		<-time.After(time.Second) // half of a claim
		stop()
		wait(10 * time.Second)
		require.Equal(d.t, map[string]int{"m": 1}, d.road.sent())
		require.Equal(d.t, delivery.StatusQueued, d.get("m").Status)
		require.Empty(d.t, d.get("later").ClaimedBy, "it claims no more")
	})
}

// distantStore takes two seconds for a claim, and carries it out even when its
// caller has gone.
type distantStore struct{ delivery.Store }

func (s *distantStore) Claim(ctx context.Context, claim delivery.Claim) ([]delivery.Record, error) {
	var records []delivery.Record
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-time.After(2 * time.Second)
		records, err = s.Store.Claim(context.WithoutCancel(ctx), claim)
	}()
	select {
	case <-done:
		return records, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestAStoreThatTellsNonsenseCausesNoHotLoop(t *testing.T) {
	inDepot(t, func(d *depot) {
		store := &nonsenseStore{Store: d.store}
		stop := d.run(d.worker(store, d.road, d.config()))
		wait(time.Minute)
		stop()
		require.Less(d.t, d.store.calls.Load(), int64(1500), "in a minute")
	})
}

// nonsenseStore has something due that can't be claimed.
type nonsenseStore struct{ delivery.Store }

func (s *nonsenseStore) NextDue(context.Context, ...delivery.Status) (time.Time, error) {
	return time.Now().Add(-time.Second), nil
}

func TestVolatileTransportsClaimsAreKept(t *testing.T) {
	inDepot(t, func(d *depot) {
		mine := stored("mine", delivery.StatusQueued, time.Now().Add(time.Minute))
		mine.ClaimedBy = "now"
		orphan := stored("orphan", delivery.StatusQueued, time.Now())
		orphan.ClaimedBy = "before"
		d.save(mine, orphan, stored("retry", delivery.StatusRetrying, time.Now()))
		stop := d.run(d.worker(d.store, &volatileRoad{d.road, "now"}, d.config()))
		wait(0)
		other := d.run(d.worker(d.store, &volatileRoad{&road{}, "another"}, d.config()))
		for range 10 {
			wait(time.Minute)
			for _, id := range []string{"mine", "orphan", "retry"} {
				record := d.get(id)
				require.Equal(d.t, delivery.StatusQueued, record.Status, id)
				require.Equal(d.t, "now", record.ClaimedBy, id)
				require.True(d.t, record.DueAt.After(time.Now().Add(30*time.Second)), id)
			}
		}
		require.Equal(d.t, map[string]int{"orphan": 1, "retry": 1}, d.road.sent())

		// The store is away for so long that the claims end. They are renewed
		// before anybody looks for orphans. Another process would be faster.
		other()
		d.store.down.Store(true)
		wait(time.Hour)
		d.store.down.Store(false)
		wait(2 * time.Minute)
		require.Equal(d.t, map[string]int{"orphan": 1, "retry": 1}, d.road.sent())

		// Others go on at once when it ends.
		stop()
		for _, id := range []string{"mine", "orphan", "retry"} {
			require.False(d.t, d.get(id).DueAt.After(time.Now()), id)
		}
		require.NoError(d.t, d.worker(d.store, &volatileRoad{d.road, "later"}, d.config()).RunOnce(context.Background()))
		require.Equal(d.t, map[string]int{"mine": 1, "orphan": 2, "retry": 2}, d.road.sent())
		require.Equal(d.t, "later", d.get("mine").ClaimedBy)
	})
}

// Claims of this process that ended, because nobody could renew them, are renewed
// before anybody looks for orphans.
func TestLapsedClaimsAreRenewedFirst(t *testing.T) {
	inDepot(t, func(d *depot) {
		mine, orphan := stored("mine", delivery.StatusQueued, time.Now()), stored("orphan", delivery.StatusQueued, time.Now())
		mine.ClaimedBy, orphan.ClaimedBy = "now", "before"
		d.save(mine, orphan)
		wait(time.Hour)
		worker := d.worker(d.store, &volatileRoad{d.road, "now"}, d.config())
		d.store.before = once("renew", delivery.ErrStoreDown)
		require.ErrorIs(d.t, worker.RunOnce(context.Background()), delivery.ErrStoreDown)
		require.Empty(d.t, d.road.sent(), "who could be an orphan is not known")
		require.NoError(d.t, worker.RunOnce(context.Background()))
		require.Equal(d.t, map[string]int{"orphan": 1}, d.road.sent())
		require.Equal(d.t, time.Now().Add(time.Minute).UTC(), d.get("mine").DueAt)
	})
}

func TestAnOrphanThatCanNotBeSentStaysAnOrphan(t *testing.T) {
	inDepot(t, func(d *depot) {
		orphan := stored("m", delivery.StatusQueued, time.Now())
		orphan.ClaimedBy = "before"
		d.save(orphan)
		d.road.onSend(refusing(delivery.ErrRefused))
		defer d.run(d.worker(d.store, &volatileRoad{d.road, "now"}, d.config()))()
		wait(5 * time.Minute)
		d.road.onSend(nil)
		wait(2 * time.Minute)
		require.Equal(d.t, map[string]int{"m": 1}, d.road.sent())
		require.Equal(d.t, "now", d.get("m").ClaimedBy)
	})
}
