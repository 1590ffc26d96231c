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
		"store is nil", "transport is nil", "RetryWorkerConfig.Queue is empty",
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
		_, err := worker.Wake(context.Background(), delivery.WakeFilter{All: true})
		require.ErrorIs(t, err, delivery.ErrConfig)
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
			bubble(t, func(f *fixture) {
				record := test.record(time.Now())
				record.Body, record.Headers, record.Generation = []byte("hello"), map[string]string{"k": "v"}, 2
				f.save(record)
				before := f.get("m")
				require.NoError(f.t, f.workOnce(f.workerConfig()))
				after := f.get("m")
				if !test.sent {
					require.Empty(f.t, f.outlet.sent())
					require.Equal(f.t, before, after)
					return
				}
				require.Equal(f.t, map[string]int{"m": 1}, f.outlet.sent())
				want := before.Envelope()
				if record.Status == delivery.StatusQueued {
					want.Crashes = 1 // it was handed over before
				}
				require.Equal(f.t, want, f.outlet.envelopes()[0])
				require.Equal(f.t, delivery.StatusQueued, after.Status)
				require.Zero(f.t, after.DueAt)
				require.Empty(f.t, after.ClaimedBy)
				require.Equal(f.t, before.RetryCount, after.RetryCount)
			})
		})
	}
}

func TestWorkerWakesInTime(t *testing.T) {
	for name, test := range map[string]struct {
		late time.Duration // at most
		wrap func(f *fixture) delivery.Store
	}{
		"told by the store": {25 * time.Millisecond, func(f *fixture) delivery.Store { return f.records }},
		"on its own":        {30 * time.Second, func(f *fixture) delivery.Store { return struct{ delivery.Store }{f.records} }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				begin := time.Now()
				f.save(stored("known before", delivery.StatusRetrying, begin.Add(7*time.Second)))
				defer f.run(f.newWorker(test.wrap(f), f.outlet, f.workerConfig()))()
				wait(time.Second)
				f.save(stored("saved since", delivery.StatusRetrying, begin.Add(2500*time.Millisecond)))
				f.save(stored("due at once", delivery.StatusPending, begin.Add(time.Second)))
				wait(time.Minute)
				for i, envelope := range f.outlet.envelopes() {
					late := f.outlet.times[i].Sub(f.get(envelope.ID).CreatedAt)
					switch envelope.ID {
					case "known before":
						assert.InDelta(f.t, 7, late.Seconds(), 0.025)
					case "saved since":
						assert.InDelta(f.t, 1.5, late.Seconds(), test.late.Seconds())
					case "due at once":
						assert.LessOrEqual(f.t, late, test.late)
					}
				}
				require.Len(f.t, f.outlet.envelopes(), 3)
			})
		})
	}
}

// A full batch is followed by the next at once, and no kind waits for another's
// backlog.
func TestABacklogIsWorkedOffFairly(t *testing.T) {
	bubble(t, func(f *fixture) {
		const backlog = 1000
		for i := range backlog {
			f.save(stored(fmt.Sprint("retry-", i), delivery.StatusRetrying, time.Now()))
		}
		f.save(stored("pending", delivery.StatusPending, time.Now()), stored("overdue", delivery.StatusSent, time.Now()))
		config := f.workerConfig()
		config.BatchSize = 10
		begin := time.Now()
		stop := f.work(config)
		wait(0)
		stop()
		require.Len(f.t, f.outlet.sent(), backlog+1)
		require.Zero(f.t, time.Since(begin), "all at once")
		require.Equal(f.t, "pending", f.outlet.envelopes()[10].ID, "right after the first batch of retries")
		require.Equal(f.t, delivery.StatusRetrying, f.get("overdue").Status)
		require.Equal(f.t, backlog/10+1, f.outlet.calls())
	})
}

func TestRunOnceTellsOfOutages(t *testing.T) {
	bubble(t, func(f *fixture) {
		worker := f.newWorker(f.records, f.outlet, f.workerConfig())
		f.save(stored("m", delivery.StatusRetrying, time.Now()), stored("overdue", delivery.StatusSent, time.Now()))
		f.records.down.Store(true)
		require.ErrorIs(f.t, worker.RunOnce(context.Background()), delivery.ErrStoreDown)
		f.records.down.Store(false)

		ended, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(f.t, worker.RunOnce(ended), context.Canceled)

		config := f.workerConfig()
		config.Retry = nil
		f.sink.down.Store(true)
		err := f.workOnce(config)
		require.ErrorIs(f.t, err, errDown)
		require.ErrorContains(f.t, err, "dead_letters")
		require.Equal(f.t, delivery.StatusQueued, f.get("m").Status)
		require.Equal(f.t, delivery.StatusSent, f.get("overdue").Status)
	})
}

// What is under way when Run is to end is finished, within bounds.
func TestRunEndsWhenWhatIsUnderWayIsFinished(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusRetrying, time.Now()))
		f.outlet.onSend(func(context.Context, []delivery.Envelope) []error {
			<-time.After(3 * time.Second)
			return nil
		})
		stop := f.work(f.workerConfig())
		wait(time.Second)
		begin := time.Now()
		stop()
		require.Equal(f.t, 2*time.Second, time.Since(begin))
		require.Equal(f.t, delivery.StatusQueued, f.get("m").Status)
	})
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusRetrying, time.Now()))
		f.outlet.onSend(func(ctx context.Context, batch []delivery.Envelope) []error {
			<-ctx.Done()
			return slices.Repeat([]error{delivery.ErrOutcomeUnknown}, len(batch))
		})
		stop := f.work(f.workerConfig())
		wait(time.Second)
		begin := time.Now()
		stop()
		require.Equal(f.t, 10*time.Second, time.Since(begin))
		require.Equal(f.t, delivery.StatusRetrying, f.get("m").Status)
		require.Zero(f.t, f.log.count("is down"), "that was us")
	})
}

// A claim that is under way when Run ends is carried out, and so is what was
// claimed.
func TestRunEndsWithNothingClaimed(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusRetrying, time.Now()), stored("later", delivery.StatusPending, time.Now()))
		stop := f.run(f.newWorker(&distantStore{f.records}, f.outlet, f.workerConfig()))
		<-time.After(time.Second) // half of a claim
		stop()
		wait(10 * time.Second)
		require.Equal(f.t, map[string]int{"m": 1}, f.outlet.sent())
		require.Equal(f.t, delivery.StatusQueued, f.get("m").Status)
		require.Empty(f.t, f.get("later").ClaimedBy, "it claims no more")
	})
}

// Queues that share a store share nothing else: a worker sends what belongs to
// its own, whether it is scheduled, failed, left behind or not acknowledged.
func TestQueuesShareAStore(t *testing.T) {
	bubble(t, func(f *fixture) {
		letters := map[string]*deadLetters{}
		outlets := map[string]*sendOnly{}
		for _, queue := range []string{"sms", "mail"} {
			for _, status := range []delivery.Status{delivery.StatusPending, delivery.StatusRetrying, delivery.StatusQueued, delivery.StatusSent} {
				record := stored(string(status)+" "+queue, status, time.Now())
				record.Queue = queue
				f.save(record)
			}
			letters[queue], outlets[queue] = newDeadLetters(), &sendOnly{}
		}
		for _, queue := range []string{"sms", "mail"} {
			config := f.workerConfig()
			config.Queue, config.Retry, config.DeadLetters = queue, nil, letters[queue]
			for range 2 {
				require.NoError(t, f.newWorker(f.records, outlets[queue], config).RunOnce(f.t.Context()))
			}
		}
		for _, queue := range []string{"sms", "mail"} {
			require.Equal(t, map[string]int{"pending " + queue: 1, "retrying " + queue: 1, "queued " + queue: 1}, outlets[queue].sent())
			require.Len(t, letters[queue].all(), 1)
			require.Equal(t, "sent "+queue, letters[queue].all()[0].Envelope.ID)
			require.Equal(t, queue, letters[queue].all()[0].Source)
		}
	})
}

// After an outage there is much to send: what is urgent goes first, and what is
// not is sent all the same.
func TestWhatIsUrgentIsSentFirst(t *testing.T) {
	for batch, bound := range map[int]int{40: 40, 3: 3 * 3} {
		bubble(t, func(f *fixture) {
			begin := time.Now()
			save := func(n int, name string, priority delivery.Priority, due time.Time) {
				for i := range n {
					record := stored(fmt.Sprint(name, i), delivery.StatusRetrying, due)
					record.Priority = priority
					f.save(record)
				}
			}
			save(1, "low", delivery.Low, begin)
			save(1000, "high", delivery.High, begin.Add(time.Millisecond))
			save(1, "urgent", delivery.Urgent, begin.Add(time.Second))
			wait(time.Second)
			config := f.workerConfig()
			config.BatchSize = batch
			require.NoError(t, f.workOnce(config))
			place := func(id string) int {
				return slices.IndexFunc(f.outlet.taken, func(e delivery.Envelope) bool { return e.ID == id })
			}
			require.Equal(t, 0, place("urgent0"))
			require.Less(t, place("low0"), bound, "passed over for too long")
			require.Positive(t, place("low0"))
			require.Len(t, f.outlet.sent(), 1002)
		})
	}
}

// The share of what goes by its due time alone is an eighth of all, whatever the size
// of a batch.
func TestAnEighthGoesByItsDueTimeAlone(t *testing.T) {
	for _, batch := range []int{1, 4, 7, 8, 15, 100} {
		bubble(t, func(f *fixture) {
			records := make([]delivery.Record, 0, 80*batch)
			for i := range 40 * batch {
				low := stored(fmt.Sprint("low", i), delivery.StatusRetrying, time.Now())
				high := stored(fmt.Sprint("high", i), delivery.StatusRetrying, time.Now().Add(time.Second))
				low.Priority, high.Priority = delivery.Low, delivery.High
				records = append(records, low, high)
			}
			f.save(records...)
			wait(time.Second)
			config := f.workerConfig()
			config.BatchSize = batch
			require.NoError(t, f.workOnce(config))
			low := 0
			for _, envelope := range f.outlet.envelopes()[:40*batch] {
				if envelope.Priority == delivery.Low {
					low++
				}
			}
			require.Equal(t, 5*batch, low, "with batches of %d", batch)
		})
	}
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
	bubble(t, func(f *fixture) {
		store := &nonsenseStore{Store: f.records}
		stop := f.run(f.newWorker(store, f.outlet, f.workerConfig()))
		wait(time.Minute)
		stop()
		require.Less(f.t, f.records.calls.Load(), int64(1500), "in a minute")
	})
}

// nonsenseStore has something due that can't be claimed.
type nonsenseStore struct{ delivery.Store }

func (s *nonsenseStore) NextDue(context.Context, string, ...delivery.Status) (time.Time, error) {
	return time.Now().Add(-time.Second), nil
}
