package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// backlog saves n retries that are due.
func (d *depot) backlog(n int) {
	d.t.Helper()
	for i := range n {
		d.save(stored(fmt.Sprint("m-", i), delivery.StatusRetrying, time.Now()))
	}
}

// sentBetween asserts that each of n was sent from least to most times, and is
// queued.
func (d *depot) sentBetween(n, least, most int) (copies int) {
	d.t.Helper()
	sent := d.road.sent()
	require.Len(d.t, sent, n)
	for id, times := range sent {
		require.GreaterOrEqual(d.t, times, least, id)
		require.LessOrEqual(d.t, times, most, id)
		require.Equal(d.t, delivery.StatusQueued, d.get(id).Status, id)
		copies += times - 1
	}
	return copies
}

func TestWorkerOutlivesTheStore(t *testing.T) {
	inDepot(t, func(d *depot) {
		config := d.config()
		config.BatchSize = 10
		d.store.down.Store(true)
		defer d.start(config)()
		d.backlog(95)
		wait(time.Hour)
		require.Empty(d.t, d.road.sent())
		require.Less(d.t, d.store.calls.Load(), int64(400), "in an hour")
		require.Equal(d.t, 1, d.log.count("dependency is down"))
		require.False(d.t, d.up("store"))
		d.store.down.Store(false)
		wait(31 * time.Second)
		d.sentBetween(95, 1, 1)
		require.Equal(d.t, 1, d.log.count("dependency is back"))
		require.True(d.t, d.up("store"))
	})
}

func TestWorkerOutlivesTheTransport(t *testing.T) {
	inDepot(t, func(d *depot) {
		config := d.config()
		config.BatchSize = 10
		d.backlog(95)
		d.save(stored("overdue", delivery.StatusSent, time.Now().Add(30*time.Minute)))
		d.road.onSend(refusing(errDown))
		defer d.start(config)()
		wait(time.Hour)
		require.Empty(d.t, d.road.sent())
		require.Less(d.t, d.road.calls(), 400, "in an hour")
		require.Less(d.t, d.store.calls.Load(), int64(4000), "in an hour")
		require.Equal(d.t, 1, d.log.count("dependency is down"))
		require.False(d.t, d.up("transport"))
		require.Equal(d.t, 1, d.timeouts(), "other duties go on")
		d.road.onSend(nil)
		wait(91 * time.Second) // a backoff and a lease
		d.sentBetween(96, 1, 1)
		require.Equal(d.t, 1, d.log.count("dependency is back"))
		require.True(d.t, d.up("transport"))
	})
}

func TestWorkerOutlivesTheDeadLetters(t *testing.T) {
	inDepot(t, func(d *depot) {
		config := d.config()
		config.Retry, config.BatchSize = nil, 10
		for i := range 95 {
			d.save(stored(fmt.Sprint("overdue-", i), delivery.StatusSent, time.Now()))
		}
		d.graves.down.Store(true)
		defer d.start(config)()
		wait(time.Minute)
		d.save(stored("retry", delivery.StatusRetrying, time.Now()))
		wait(time.Hour)
		require.Less(d.t, d.graves.puts.Load(), int64(400), "in an hour")
		require.Equal(d.t, 1, d.log.count("dependency is down"))
		require.False(d.t, d.up("dead_letters"))
		require.Zero(d.t, d.timeouts())
		require.Equal(d.t, delivery.StatusQueued, d.get("retry").Status, "other duties go on")
		d.graves.down.Store(false)
		wait(91 * time.Second)
		require.Len(d.t, d.graves.all(), 95)
		require.Equal(d.t, 95, d.timeouts())
		require.Equal(d.t, 1, d.log.count("dependency is back"))
	})
}

// Between the send and the mark the process dies: one more copy, no more.
func TestACrashBetweenSendAndMarkSendsOnceMore(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.backlog(20)
		begin := time.Now()
		dying := &shakyStore{Store: d.store.Store}
		dying.before = func(step string) error {
			if step == "update" {
				dying.down.Store(true) // for good
				return delivery.ErrStoreDown
			}
			return nil
		}
		stop := d.run(d.worker(dying, d.road, d.config()))
		wait(time.Second)
		stop()
		require.Len(d.t, d.road.sent(), 20)
		require.Equal(d.t, delivery.StatusRetrying, d.get("m-0").Status)

		defer d.start(d.config())()
		wait(59*time.Second - time.Since(begin))
		require.Equal(d.t, 1, d.road.sent()["m-0"], "the lease goes on")
		wait(2 * time.Second)
		d.sentBetween(20, 2, 2)
		wait(time.Hour)
		d.sentBetween(20, 2, 2)
	})
}

// A store that is gone for a moment between the two costs no copy, and nothing is
// counted twice.
func TestAMarkIsTriedAgainWhileTheLeaseLasts(t *testing.T) {
	for fault, shake := range map[string]func(*shakyStore){
		"not done":               func(s *shakyStore) { s.before = once("update", delivery.ErrStoreDown) },
		"done, not told":         func(s *shakyStore) { s.after = once("update", delivery.ErrStoreDown) },
		"done, not told in time": func(s *shakyStore) { s.after = once("update", context.DeadlineExceeded) },
		"away": func(s *shakyStore) {
			fail := once("update", delivery.ErrStoreDown)
			s.before = func(step string) error {
				err := fail(step)
				if err != nil {
					s.down.Store(true)
					time.AfterFunc(20*time.Second, func() { s.down.Store(false) })
				}
				return err
			}
		},
	} {
		for name, test := range map[string]struct {
			record delivery.Status
			policy retry.Policy
			want   delivery.Status
		}{
			"sent":     {delivery.StatusRetrying, nil, delivery.StatusQueued},
			"overdue":  {delivery.StatusSent, retry.Exponential{Base: time.Hour, Max: time.Hour}, delivery.StatusRetrying},
			"given up": {delivery.StatusSent, nil, delivery.StatusFailed},
		} {
			t.Run(fault+", "+name, func(t *testing.T) {
				inDepot(t, func(d *depot) {
					d.save(stored("a", test.record, time.Now()), stored("b", test.record, time.Now()))
					config := d.config()
					config.Retry = test.policy
					shake(d.store)
					stop := d.start(config)
					wait(59 * time.Second)
					stop()
					require.Equal(d.t, test.want, d.get("a").Status)
					require.Equal(d.t, test.want, d.get("b").Status)
					switch test.record {
					case delivery.StatusRetrying:
						d.sentBetween(2, 1, 1)
					default:
						require.Equal(d.t, 2, d.timeouts())
						require.LessOrEqual(d.t, d.graves.puts.Load(), int64(1))
					}
				})
			})
		}
	}
}

// Two workers share a store, one is killed in the middle of its work: every
// message is sent, each at most once more.
func TestTwoWorkersOneKilled(t *testing.T) {
	for name, killed := range map[string]func(store *shakyStore, road *dyingRoad, dies func() bool){
		"after a claim": func(store *shakyStore, _ *dyingRoad, dies func() bool) {
			store.after = func(step string) error {
				if step == "claim" && dies() {
					return errDown
				}
				return nil
			}
		},
		"while it sends": func(_ *shakyStore, road *dyingRoad, dies func() bool) { road.dies = dies },
		"before a mark": func(store *shakyStore, _ *dyingRoad, dies func() bool) {
			store.before = func(step string) error {
				if step == "update" && dies() {
					return errDown
				}
				return nil
			}
		},
		"after a mark": func(store *shakyStore, _ *dyingRoad, dies func() bool) {
			store.after = func(step string) error {
				if step == "update" && dies() {
					return errDown
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inDepot(t, func(d *depot) {
				const n, batch = 1000, 50
				d.backlog(n)
				config := d.config()
				config.BatchSize = batch
				d.road.onSend(func(context.Context, []delivery.Envelope) []error {
					<-time.After(time.Second) // so that both get to work
					return nil
				})
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				store, road := &shakyStore{Store: d.store.Store}, &dyingRoad{road: d.road}
				var steps atomic.Int64
				killed(store, road, func() bool {
					if steps.Add(1) < 4 {
						return false
					}
					store.down.Store(true)
					cancel()
					return true
				})
				ended := make(chan error, 1)
				go func() { ended <- d.worker(store, road, config).Run(ctx) }()
				defer d.start(config)()
				wait(3 * time.Minute)
				require.NoError(d.t, <-ended)
				copies := d.sentBetween(n, 1, 2)
				require.LessOrEqual(d.t, copies, batch, "what it had in hand")
			})
		})
	}
}

// dyingRoad is a road of a process that may die in the middle of a send.
type dyingRoad struct {
	*road
	dies func() bool
}

func (r *dyingRoad) Send(ctx context.Context, batch []delivery.Envelope) []error {
	if r.dies == nil || !r.dies() {
		return r.road.Send(ctx, batch)
	}
	r.road.Send(ctx, batch[:len(batch)/2])
	return slices.Repeat([]error{delivery.ErrOutcomeUnknown}, len(batch))
}

// Many workers at once send everything, and nothing twice.
func TestManyWorkers(t *testing.T) {
	inDepot(t, func(d *depot) {
		config := d.config()
		config.BatchSize = 7
		for range 8 {
			defer d.start(config)()
		}
		for range 10 {
			wait(time.Second)
			for i := range 100 {
				id := fmt.Sprint("m-", time.Now().UnixNano(), i)
				d.save(stored(id, delivery.StatusRetrying, time.Now().Add(time.Duration(i)*time.Millisecond)))
			}
		}
		wait(time.Minute)
		d.sentBetween(1000, 1, 1)
	})
}

func TestOverdueAcknowledgments(t *testing.T) {
	inDepot(t, func(d *depot) {
		record := stored("m", delivery.StatusSent, time.Now().Add(time.Minute))
		record.Body, record.History = []byte("hello"), []delivery.Failure{{At: time.Now().UTC(), Error: "busy"}}
		d.save(record)
		defer d.start(d.config())()
		wait(59 * time.Second)
		require.Zero(d.t, d.timeouts())
		for retry, delay := range []time.Duration{10 * time.Second, 20 * time.Second} {
			wait(1100 * time.Millisecond)
			got := d.get("m")
			require.Equal(d.t, delivery.StatusRetrying, got.Status)
			require.Equal(d.t, retry+1, got.RetryCount)
			require.Equal(d.t, delay, got.NextRetryAt.Sub(got.LastRetryAt))
			require.Equal(d.t, "delivery: not acknowledged in time", got.FailureReason())
			require.Empty(d.t, got.ClaimedBy)
			require.Equal(d.t, retry+1, d.timeouts())
			require.Equal(d.t, retry+1, d.log.count("acknowledgment timeout"))

			wait(delay)
			got = d.get("m")
			require.Equal(d.t, delivery.StatusQueued, got.Status)
			require.Equal(d.t, got.Envelope(), d.road.envelopes()[retry])
			sent := delivery.Update{ID: "m", Status: delivery.StatusSent, RetryCount: retry + 1, At: time.Now(), DueAt: time.Now().Add(time.Minute)}
			d.update(sent)
			wait(59 * time.Second)
		}
		require.Empty(d.t, d.graves.all())
		wait(1100 * time.Millisecond)
		got := d.get("m")
		require.Equal(d.t, delivery.StatusFailed, got.Status)
		require.Equal(d.t, 3, got.RetryCount)
		require.Len(d.t, d.graves.all(), 1)
		letter := d.graves.all()[0]
		require.Equal(d.t, got.DeadLetterID, letter.ID)
		require.Equal(d.t, delivery.ReasonAckTimeout, letter.Reason)
		require.Equal(d.t, "delivery: not acknowledged in time", letter.Error)
		require.Equal(d.t, "road", letter.Source)
		require.Equal(d.t, got.Envelope(), letter.Envelope)
		require.Equal(d.t, 3, d.timeouts())
		require.Equal(d.t, 1, d.log.count("dead-lettered"))
	})
}

func TestOverdueAcknowledgmentsAreIgnored(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusSent, time.Now()))
		config := d.config()
		config.IgnoreAckTimeouts = true
		stop := d.start(config)
		wait(time.Hour)
		stop()
		require.Equal(d.t, delivery.StatusSent, d.get("m").Status)
		require.NoError(d.t, d.worker(d.store, d.road, d.config()).RunOnce(context.Background()))
		require.Equal(d.t, delivery.StatusRetrying, d.get("m").Status)
	})
}

// Whoever lost the claim counts nothing.
func TestAnOverdueAcknowledgmentIsCountedByWhoHasTheClaim(t *testing.T) {
	inDepot(t, func(d *depot) {
		d.save(stored("m", delivery.StatusSent, time.Now()))
		d.store.before = func(step string) error {
			if step == "update" {
				claim := delivery.Claim{Status: delivery.StatusSent, Token: "other", Now: time.Now().Add(time.Hour), Lease: time.Hour, Limit: 1}
				_, err := d.store.Store.Claim(context.Background(), claim)
				require.NoError(d.t, err)
			}
			return nil
		}
		require.NoError(d.t, d.worker(d.store, d.road, d.config()).RunOnce(context.Background()))
		require.Equal(d.t, delivery.StatusSent, d.get("m").Status)
		require.Zero(d.t, d.timeouts())
	})
}

// Something happens between the dead letter and the record's update.
func TestADeadLetterIsTakenBack(t *testing.T) {
	acknowledged := func(d *depot) {
		d.update(delivery.Update{ID: "m", Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true})
	}
	noResolver := func(d *depot, config *delivery.RetryWorkerConfig) {
		config.DeadLetters = struct{ delivery.DeadLetterer }{d.graves}
	}
	for name, test := range map[string]struct {
		meanwhile func(d *depot)
		config    func(d *depot, config *delivery.RetryWorkerConfig)
		failures  int64 // of resolving
		letters   int
		status    delivery.Status
	}{
		"acknowledged":                           {meanwhile: acknowledged, status: delivery.StatusDelivered},
		"acknowledged, resolving fails at first": {meanwhile: acknowledged, failures: 3, status: delivery.StatusDelivered},
		"acknowledged, resolving fails for good": {meanwhile: acknowledged, failures: 1e6, status: delivery.StatusDelivered, letters: 1},
		"acknowledged, no resolver":              {meanwhile: acknowledged, config: noResolver, status: delivery.StatusDelivered, letters: 1},
		"claimed by another worker, whose letter is the same": {
			meanwhile: func(d *depot) {
				claim := delivery.Claim{Status: delivery.StatusSent, Token: "other", Now: time.Now().Add(time.Hour), Lease: time.Hour, Limit: 1}
				_, err := d.store.Store.Claim(context.Background(), claim)
				require.NoError(d.t, err)
			},
			status: delivery.StatusSent, letters: 1,
		},
		"given up by another worker": {
			meanwhile: func(d *depot) {
				record := d.get("m")
				update := failedAttempt(&record, delivery.StatusFailed, time.Time{})
				update.At, update.DeadLetterID = update.At.Add(time.Millisecond), d.graves.all()[0].ID
				d.update(update)
			},
			status: delivery.StatusFailed, letters: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inDepot(t, func(d *depot) {
				d.save(stored("m", delivery.StatusSent, time.Now()))
				config := d.config()
				config.Retry = nil
				if test.config != nil {
					test.config(d, &config)
				}
				d.graves.onPut = func() { test.meanwhile(d) }
				failures := atomic.Int64{}
				d.graves.onTake = func() error {
					if failures.Add(1) <= test.failures {
						return errDown
					}
					return nil
				}
				require.NoError(d.t, d.worker(d.store, d.road, config).RunOnce(context.Background()))
				require.Len(d.t, d.graves.all(), test.letters)
				require.Equal(d.t, test.status, d.get("m").Status)
				require.Zero(d.t, d.timeouts())
				stays := 0
				if test.letters == 1 && test.status == delivery.StatusDelivered {
					stays = 1
				}
				require.Equal(d.t, stays, d.log.count("dead letters of acknowledged messages stay"))
			})
		})
	}
}

// A letter that can't be taken back for now holds up nothing else, and is taken
// back when that works again.
func TestTakingBackHoldsUpNothing(t *testing.T) {
	inDepot(t, func(d *depot) {
		config := d.config()
		config.Retry, config.Lease = nil, 2*time.Hour
		d.save(stored("m", delivery.StatusSent, time.Now()))
		d.graves.onPut = func() {
			d.update(delivery.Update{ID: "m", Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true})
		}
		var down atomic.Bool
		down.Store(true)
		d.graves.onTake = func() error {
			if down.Load() {
				return errDown
			}
			return nil
		}
		stop := d.start(config)
		wait(time.Minute)
		d.save(stored("retry", delivery.StatusRetrying, time.Now()))
		wait(time.Second)
		require.Equal(d.t, delivery.StatusQueued, d.get("retry").Status, "other duties go on")
		require.Len(d.t, d.graves.all(), 1)
		wait(time.Hour)
		require.Equal(d.t, 1, d.log.count("not taken back yet"))
		down.Store(false)
		wait(time.Minute)
		require.Empty(d.t, d.graves.all())
		require.Zero(d.t, d.log.count("dead letters of acknowledged messages stay"))
		stop()
	})
}

// A worker that died between the dead letter and its note, and an end user who
// acknowledged before the next one came, leave a letter. To replay it sends
// nothing.
func TestAnUnfoundedLetterIsReplayedToNobody(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		require.Empty(t, records.Save(f.t.Context(), stored("m", delivery.StatusSent, time.Now())))
		dying := &shakyStore{Store: records.Store}
		dying.before = func(step string) error {
			if step == "update" {
				dying.down.Store(true) // for good
				return delivery.ErrStoreDown
			}
			return nil
		}
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
