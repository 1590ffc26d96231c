package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

func TestDeliversOnce(t *testing.T) {
	bubble(t, func(f *fixture) {
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, f.config())
		for range 3 {
			f.publish(to("a"), to("b"))
		}
		wait(time.Second)
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.Equal(t, []int{1}, f.attempts("b"))
		require.NoError(t, stop())
		f.empty()
		assert.Equal(t, 2, f.processed(metrics.OutcomeDelivered))
		assert.Equal(t, 4, f.processed(metrics.OutcomeDuplicate))
	})
}

func TestFailures(t *testing.T) {
	broken := errors.New("provider is broken")
	always := func(err error) func(int) error { return func(int) error { return err } }
	for name, test := range map[string]struct {
		handle   func(run int) error // run counts from 1
		change   func(*delivery.ConsumerConfig)
		attempts []int         // of each run of the handler
		took     time.Duration // until nothing more happens
		reason   delivery.Reason
	}{
		"mended by the second attempt": {
			handle:   func(run int) error { return failUntil(run, 2, broken) },
			attempts: []int{1, 2}, took: time.Second,
		},
		"exhausted": {
			handle:   always(broken),
			attempts: []int{1, 2, 3, 4}, took: 7 * time.Second, reason: delivery.ReasonExhausted,
		},
		"permanent": {
			handle:   always(fmt.Errorf("wrapped: %w", retry.Permanent(broken))),
			attempts: []int{1}, reason: delivery.ReasonPermanent,
		},
		"no retry policy": {
			handle:   always(broken),
			change:   func(c *delivery.ConsumerConfig) { c.Retry = nil },
			attempts: []int{1}, reason: delivery.ReasonExhausted,
		},
		"transient is tried at once, as one attempt": {
			handle:   func(run int) error { return failUntil(run, 3, syscall.ECONNREFUSED, context.DeadlineExceeded) },
			attempts: []int{1, 1, 1},
		},
		"transient beyond the immediate retries": {
			handle:   func(run int) error { return failUntil(run, 4, context.DeadlineExceeded) },
			attempts: []int{1, 1, 1, 2}, took: time.Second,
		},
		"no immediate retries": {
			handle:   func(run int) error { return failUntil(run, 2, context.DeadlineExceeded) },
			change:   func(c *delivery.ConsumerConfig) { c.ImmediateRetries = -1 },
			attempts: []int{1, 2}, took: time.Second,
		},
		"the error says when": {
			handle:   func(run int) error { return failUntil(run, 2, retry.After(10*time.Second, broken)) },
			attempts: []int{1, 2}, took: 10 * time.Second,
		},
		"the error's wait is bounded": {
			handle:   func(run int) error { return failUntil(run, 2, retry.After(1000*time.Hour, broken)) },
			change:   func(c *delivery.ConsumerConfig) { c.MaxRetryAfter = time.Minute },
			attempts: []int{1, 2}, took: time.Minute,
		},
		"panic": {
			handle: func(run int) error {
				if run == 1 {
					panic("boom")
				}
				return nil
			},
			attempts: []int{1, 2}, took: time.Second,
		},
		"runtime.Goexit": {
			handle: func(run int) error {
				if run == 1 {
					runtime.Goexit()
				}
				return nil
			},
			change:   func(c *delivery.ConsumerConfig) { c.Concurrency = 1 },
			attempts: []int{1, 2}, took: time.Second,
		},
		"a rule of the host that panics": {
			handle: func(run int) error { return failUntil(run, 2, broken) },
			change: func(c *delivery.ConsumerConfig) {
				c.Classifier = retry.Classifier{Rules: []retry.Rule{func(error) (retry.Class, bool) { panic("rule") }}}
			},
			attempts: []int{1, 2}, took: time.Second,
		},
		"canceled by itself is a failure like any other": {
			handle:   func(run int) error { return failUntil(run, 2, context.Canceled) },
			attempts: []int{1, 2}, took: time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				if test.change != nil {
					test.change(&config)
				}
				_, stop := f.consume(func(_ context.Context, m delivery.Message) error { return test.handle(len(f.attempts(m.ID))) }, config)
				f.publish(to("a"))
				if test.took > 0 {
					wait(test.took - time.Millisecond)
					assert.Less(t, len(f.attempts("a")), len(test.attempts), "before the last delay has passed")
				}
				wait(2 * time.Millisecond)
				assert.Equal(t, test.attempts, f.attempts("a"))
				wait(time.Hour)
				assert.Equal(t, test.attempts, f.attempts("a"), "and then no more")
				require.NoError(t, stop())
				f.empty()
				if test.reason == "" {
					assert.Zero(t, f.sink.count())
					return
				}
				letter := f.sink.only(t)
				assert.Equal(t, test.reason, letter.Reason)
				assert.Equal(t, "memory", letter.Source)
				assert.Equal(t, len(test.attempts), letter.Envelope.Attempt)
				assert.Len(t, letter.Envelope.History, len(test.attempts))
				assert.Contains(t, letter.Error, "provider is broken")
			})
		})
	}
}

// failUntil fails all runs before the given one, with the last of errs again
// and again.
func failUntil(run, success int, errs ...error) error {
	if run >= success {
		return nil
	}
	return errs[min(run, len(errs))-1]
}

func TestHandlerTimeout(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.HandlerTimeout = time.Second
		config.ImmediateRetries = -1
		_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
			if len(f.attempts(m.ID)) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, config)
		f.publish(to("a"))
		wait(1999 * time.Millisecond)
		assert.Equal(t, []int{1}, f.attempts("a"))
		wait(2 * time.Millisecond)
		assert.Equal(t, []int{1, 2}, f.attempts("a"))
		require.NoError(t, stop())
	})
}

func TestHandlerThatIgnoresItsTimeoutKeepsItsSlotAndLease(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.HandlerTimeout = time.Second
		config.IdempotencyLease = 2 * time.Second
		config.Concurrency = 2
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			<-time.After(time.Minute)
			return nil
		}, config)
		f.publish(to("a"))
		f.publish(to("a")) // a copy must wait
		wait(59 * time.Second)
		assert.Equal(t, []int{1}, f.attempts("a"))
		wait(10 * time.Second)
		assert.Equal(t, []int{1}, f.attempts("a"), "what returned nil is done, however late")
		assert.Equal(t, 1, f.processed(metrics.OutcomeDuplicate))
		require.NoError(t, stop())
		f.empty()
	})
}

func TestUnusableMessages(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.transport.broken = func(id string) bool { return id == "broken" }
		config := f.config()
		config.MaxBodyBytes = 1000
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		broken, large, expired := to("broken"), to("large"), to("expired")
		broken.Body = []byte("{\x00")
		large.Body = make([]byte, 1001)
		expired.ExpiresAt = time.Now().Add(time.Second)
		expired.NotBefore = time.Now().Add(time.Second)
		f.publish(broken, large, expired, to("good"))
		wait(time.Minute)
		assert.Len(t, f.runs, 1)
		assert.Equal(t, []int{1}, f.attempts("good"))
		require.NoError(t, stop())
		f.empty()
		reasons := map[delivery.Reason]int{}
		for _, letter := range f.sink.letters {
			reasons[letter.Reason]++
			switch {
			case letter.Envelope.ID == "large":
				assert.Len(t, letter.Raw, 1001)
				assert.Empty(t, letter.Envelope.Body)
			case letter.Reason == delivery.ReasonMalformed:
				assert.Equal(t, []byte("{\x00"), letter.Raw)
			}
		}
		assert.Equal(t, map[delivery.Reason]int{delivery.ReasonMalformed: 2, delivery.ReasonExpired: 1}, reasons)
	})
}

func TestNotBefore(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Metrics = nil // a month of depths
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		later := to("later")
		later.NotBefore = time.Now().Add(30 * 24 * time.Hour) // longer than any transport holds at once
		f.publish(later, to("now"))
		wait(30*24*time.Hour - time.Second)
		assert.Empty(t, f.attempts("later"))
		assert.Equal(t, []int{1}, f.attempts("now"))
		wait(2 * time.Second)
		assert.Equal(t, []int{1}, f.attempts("later"))
		require.NoError(t, stop())
	})
}

func TestBreakerPausesAndCountsNoAttempt(t *testing.T) {
	bubble(t, func(f *fixture) {
		var broken atomic.Bool
		broken.Store(true)
		config := f.config()
		config.Concurrency = 4
		config.Retry = retry.Exponential{Base: time.Second, Max: time.Second, MaxRetries: 1000}
		config.Breaker = breaker.New(breaker.Config{Name: "provider", SampleSize: 4, OpenFor: 30 * time.Second})
		consumer, stop := f.consume(func(context.Context, delivery.Message) error {
			if broken.Load() {
				return errDown
			}
			return nil
		}, config)
		_ = consumer
		for i := range 50 {
			f.publish(to(strconv.Itoa(i)))
		}
		wait(time.Second)
		assert.Equal(t, breaker.Open, config.Breaker.State())
		runs := f.total()
		assert.Less(t, runs, 12, "it opens after a few failures")
		wait(28 * time.Second)
		assert.Equal(t, runs, f.total(), "nothing runs while it is open")
		wait(2 * time.Second)
		assert.Equal(t, runs+1, f.total(), "one probe")
		broken.Store(false)
		wait(60 * time.Second)
		require.NoError(t, stop())
		f.empty()
		assert.Equal(t, 50, f.processed(metrics.OutcomeDelivered))
		for i := range 50 {
			attempts := f.attempts(strconv.Itoa(i))
			assert.Equal(t, len(attempts), attempts[len(attempts)-1], "only runs count as attempts")
		}
		opened, _ := f.collector.Value(metrics.BreakerTransitionsTotal, metrics.LabelName, "provider", metrics.LabelTo, metrics.StateOpen)
		assert.InDelta(t, 2, opened, 0)
	})
}

func (f *fixture) total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := 0
	for _, runs := range f.runs {
		total += len(runs)
	}
	return total
}

func TestPermanentErrorsLeaveTheBreakerAlone(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Breaker = breaker.New(breaker.Config{SampleSize: 4})
		_, stop := f.consume(func(context.Context, delivery.Message) error { return retry.Permanent(errDown) }, config)
		for i := range 50 {
			f.publish(to(strconv.Itoa(i)))
		}
		wait(time.Second)
		assert.Equal(t, breaker.Closed, config.Breaker.State())
		assert.Equal(t, 50, f.sink.count())
		require.NoError(t, stop())
	})
}

func TestBreakerForEachKeyPutsOffItsOwnMessagesOnly(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Retry = retry.Exponential{Base: time.Second, Max: time.Second, MaxRetries: 1000}
		config.Logger = slog.New(slog.NewTextHandler(f.log, nil))
		config.KeyBreakers = breaker.NewSet(breaker.SetConfig{Breaker: breaker.Config{SampleSize: 4, OpenFor: 10 * time.Second}})
		config.BreakerKey = func(m delivery.Message) string { return m.Recipient }
		var broken atomic.Bool
		broken.Store(true)
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if broken.Load() && m.Recipient == "bad" {
				return errDown
			}
			return nil
		}, config)
		for i := range 20 {
			f.publish(delivery.Message{ID: fmt.Sprint("bad", i), Recipient: "bad"}, delivery.Message{ID: fmt.Sprint("good", i), Recipient: "good"})
		}
		wait(2 * time.Second)
		for i := range 20 {
			assert.Equal(t, []int{1}, f.attempts(fmt.Sprint("good", i)))
		}
		open := func() float64 {
			value, _ := f.collector.Value(metrics.BreakersOpen, metrics.LabelName, "memory")
			return value
		}
		assert.InDelta(t, 1, open(), 0)
		assert.Equal(t, 1, f.log.count(`msg="breaker open" key=bad`))
		broken.Store(false)
		wait(5 * time.Minute)
		assert.Zero(t, open())
		assert.Positive(t, f.log.count(`msg="breaker closed" key=bad`))
		require.NoError(t, stop())
		f.empty()
		assert.Equal(t, 40, f.processed(metrics.OutcomeDelivered))
		assert.Positive(t, f.processed(metrics.OutcomeDeferred))
	})
}

func TestBusyKeyWaits(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		key := idempotency.FromID("memory", "a", 0).String()
		_, err := f.store.Claim(f.t.Context(), key, "somebody else", 0, 10*time.Second)
		require.NoError(t, err)
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		f.publish(to("a"), to("b"))
		wait(9 * time.Second)
		assert.Empty(t, f.attempts("a"))
		assert.Equal(t, []int{1}, f.attempts("b"))
		wait(5 * time.Second)
		assert.Equal(t, []int{1}, f.attempts("a"), "the lease ran out, and no attempt was counted meanwhile")
		require.NoError(t, stop())
		f.empty()
	})
}

func TestForkedRetryIsStale(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			return failUntil(len(f.attempts(m.ID)), 3, errDown)
		}, config)
		// The ack of the first attempt is lost after its retry was confirmed.
		lost := false
		f.transport.loseAck = func(string) bool {
			first := !lost
			lost = true
			return first
		}
		f.publish(to("a"))
		wait(time.Minute)
		require.NoError(t, stop())
		assert.Equal(t, []int{1, 2, 3}, f.attempts("a"), "one chain of retries")
		assert.Equal(t, 1, f.processed(metrics.OutcomeDuplicate))
		f.empty()
	})
}

// What waits in hand when its connection is lost comes again: the receipts at hand are
// left alone, and each message is handled once. The one that was running then is not
// known to be a copy, because there are no keys here.
func TestStaleReceiptsAreNotHandled(t *testing.T) {
	for name, ordered := range map[string]bool{"unordered": false, "ordered": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.Idempotency, config.Ordered, config.Concurrency = nil, ordered, 1
				f.transport.broken = func(id string) bool { return id == "broken" }
				var order []string
				_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
					if wait(time.Second); len(order) == 0 {
						f.transport.lost.Add(1)
					}
					order = append(order, m.ID)
					return nil
				}, config)
				for _, id := range []string{"a", "b", "broken", "c", "d"} {
					f.publish(delivery.Message{ID: id, Recipient: "r"})
				}
				wait(time.Minute)
				require.NoError(t, stop())
				assert.Equal(t, []string{"a", "a", "b", "c", "d"}, order)
				assert.Len(t, f.sink.letters, 1)
				f.empty()
			})
		})
	}
}

// A failure whose receipt is stale by then counts for nothing without a key: the
// message comes again, and has one chain of retries.
func TestStaleFailureIsNotRetried(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Idempotency = nil
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if len(f.attempts(m.ID)) == 1 {
				f.transport.lost.Add(1)
			}
			return errDown
		}, config)
		f.publish(to("a"))
		wait(time.Minute)
		require.NoError(t, stop())
		assert.Equal(t, []int{1, 1, 2, 3, 4}, f.attempts("a"))
		assert.Len(t, f.sink.letters, 1)
		f.empty()
	})
}

func TestIdempotencyStoreDown(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.store.down.Store(true)
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, f.config())
		for i := range 100 {
			f.publish(to(strconv.Itoa(i)))
		}
		wait(time.Minute)
		assert.Zero(t, f.total(), "nothing is handled")
		assert.Equal(t, 0, f.processed(metrics.OutcomeDelivered)+f.processed(metrics.OutcomeDuplicate))
		down, _ := f.collector.Value(metrics.IdempotencyTotal, metrics.LabelResult, metrics.IdempotencyDown)
		assert.Less(t, down, 500.0, "and the store is not hammered")
		f.store.down.Store(false)
		wait(10 * time.Second)
		assert.Equal(t, 100, f.processed(metrics.OutcomeDelivered))
		for i := range 100 {
			assert.Equal(t, []int{1}, f.attempts(strconv.Itoa(i)), "no attempt was counted")
		}
		require.NoError(t, stop())
		f.empty()
	})
}

func TestIdempotencyStoreDownFailOpen(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.store.down.Store(true)
		config := f.config()
		config.FailOpen = true
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		f.publish(to("a"))
		wait(time.Second)
		assert.Equal(t, []int{1}, f.attempts("a"))
		bypassed, _ := f.collector.Value(metrics.IdempotencyTotal, metrics.LabelResult, metrics.IdempotencyBypassed)
		assert.InDelta(t, 1, bypassed, 0)
		require.NoError(t, stop())
		f.empty()
	})
}

func TestLostLeaseCancelsTheHandler(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.IdempotencyLease = 3 * time.Second
		var cause error
		_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
			if len(f.attempts(m.ID)) > 1 {
				return nil
			}
			f.store.down.Store(true)
			<-ctx.Done()
			cause = context.Cause(ctx)
			f.store.down.Store(false)
			return ctx.Err()
		}, config)
		f.publish(to("a"))
		wait(time.Minute)
		require.ErrorIs(t, cause, idempotency.ErrLost)
		assert.Equal(t, []int{1, 1}, f.attempts("a"), "redelivered, the attempt not counted")
		require.NoError(t, stop())
		f.empty()
	})
}

func TestKeyOfTheHost(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.IdempotencyKey = func(m delivery.Message) string { return m.Subject }
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		same := func(id, subject string) delivery.Message {
			return delivery.Message{ID: id, Recipient: "r", Subject: subject}
		}
		f.publish(same("a", "s"), same("b", "s"), same("c", ""), same("d", ""))
		wait(10 * time.Second)
		require.NoError(t, stop())
		assert.Len(t, f.runs, 3, "a or b, and both of those without a key")
	})
}

func TestPanicInAKeyFunctionIsAFailedAttempt(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.IdempotencyKey = func(m delivery.Message) string {
			if m.ID == "bad" {
				panic("no key")
			}
			return m.ID
		}
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		f.publish(to("bad"), to("good"))
		wait(time.Minute)
		assert.Equal(t, []int{1}, f.attempts("good"))
		assert.Equal(t, delivery.ReasonExhausted, f.sink.only(t).Reason)
		require.NoError(t, stop())
		f.empty()
	})
}

func TestStarvationLimit(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Concurrency = 1
		config.StarvationLimit = 10
		var order []delivery.Priority
		all := make(chan struct{}) // closed when all wait in hand
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.ID == "first" {
				<-all
				return nil
			}
			order = append(order, m.Priority)
			return nil
		}, config)
		f.publish(to("first"))
		synctest.Wait()
		for i := range 60 {
			m := to(strconv.Itoa(i))
			m.Priority = []delivery.Priority{delivery.Urgent, delivery.Urgent, delivery.Low}[i%3]
			f.publish(m)
		}
		synctest.Wait()
		close(all)
		wait(time.Minute)
		require.NoError(t, stop())
		require.Len(t, order, 60)
		for i, priority := range order[:40] {
			want := delivery.Urgent
			if i%11 == 10 {
				want = delivery.Low
			}
			assert.Equal(t, want, priority, "dispatch %d", i)
		}
	})
}

func TestTransportWithoutDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		plain := struct{ delivery.Transport }{f.transport} // hides the other abilities
		config := f.config()
		config.Name = "plain"
		var runs atomic.Int32
		consumer, err := delivery.NewConsumer(plain, func(ctx context.Context, _ delivery.Message) error {
			attempt, _ := delivery.AttemptFrom(ctx)
			assert.EqualValues(t, runs.Add(1), attempt.Number)
			return failUntil(attempt.Number, 3, errDown)
		}, config)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(f.t.Context())
		done := make(chan error)
		go func() { done <- consumer.Run(ctx) }()
		f.publish(to("a"))
		wait(2 * time.Second)
		assert.EqualValues(t, 2, runs.Load())
		wait(2 * time.Second)
		assert.EqualValues(t, 3, runs.Load())
		cancel()
		require.NoError(t, <-done)
		f.empty()
		publisher, err := delivery.NewPublisher(plain, delivery.PublisherConfig{})
		require.NoError(t, err)
		later := to("later")
		later.NotBefore = time.Now().Add(time.Hour)
		require.ErrorIs(t, publisher.Publish(f.t.Context(), later), delivery.ErrUnsupported)
		require.NoError(t, f.transport.Close())
	})
}

func TestMiddlewareAndTypedHandlers(t *testing.T) {
	type order struct {
		Number int `json:"number"`
	}
	bubble(t, func(f *fixture) {
		config := f.config()
		var trace []string
		tracing := func(name string) delivery.Middleware {
			return func(next delivery.Handler) delivery.Handler {
				return func(ctx context.Context, m delivery.Message) error {
					trace = append(trace, name)
					return next(ctx, m)
				}
			}
		}
		config.Middleware = []delivery.Middleware{tracing("outer"), tracing("inner")}
		var got order
		_, stop := f.consume(delivery.JSON(func(_ context.Context, o order) error {
			trace = append(trace, "handler")
			got = o
			return nil
		}), config)
		good, bad := to("good"), to("bad")
		good.Body = []byte(`{"number": 7}`)
		bad.Body = []byte(`{"number": "secret"}`)
		f.publish(good)
		wait(time.Second)
		assert.Equal(t, []string{"outer", "inner", "handler"}, trace)
		assert.Equal(t, order{Number: 7}, got)
		f.publish(bad)
		wait(time.Second)
		letter := f.sink.only(t)
		assert.Equal(t, delivery.ReasonPermanent, letter.Reason)
		assert.NotContains(t, letter.Error, "secret")
		require.NoError(t, stop())
	})
	assert.Nil(t, delivery.JSON[order](nil))
	_, ok := delivery.AttemptFrom(context.Background())
	assert.False(t, ok)
}

func TestConsumerConfigFaultsAreNamedAtOnce(t *testing.T) {
	_, err := delivery.NewConsumer(nil, nil, delivery.ConsumerConfig{
		Concurrency: -1, Prefetch: -2, StarvationLimit: -3, MaxBodyBytes: -4,
		HandlerTimeout: -1, DrainTimeout: -1, MaxRetryAfter: -1, IdempotencyLease: -1,
		IdempotencyWindow: -2, BreakerKey: func(delivery.Message) string { return "" },
		Retry:      retry.Exponential{MaxRetries: -1},
		Breaker:    breaker.New(breaker.Config{Threshold: 2}),
		Middleware: []delivery.Middleware{nil},
	})
	require.ErrorIs(t, err, delivery.ErrConfig)
	for _, says := range []string{
		"transport is nil", "handler is nil", "Name is empty", "Concurrency is -1, want at least 1", "Prefetch is -2", "StarvationLimit is -3",
		"MaxBodyBytes is -4", "HandlerTimeout is -1ns, want more than 0", "DrainTimeout", "MaxRetryAfter", "IdempotencyLease",
		"IdempotencyWindow is -2ns", "KeyBreakers and BreakerKey go together", "DeadLetters is nil", "Middleware[0] is nil",
		"Retry: ", "MaxRetries", "Breaker: ", "Threshold",
	} {
		require.ErrorContains(t, err, says)
	}
	assert.Less(t, strings.Count(err.Error(), "\n"), 30)

	f := newFixture(t)
	config := f.config()
	config.IdempotencyWindow = 5 * time.Minute
	config.Retry = retry.Exponential{Base: time.Minute, MaxRetries: 5}
	_, err = delivery.NewConsumer(f.transport, func(context.Context, delivery.Message) error { return nil }, config)
	require.ErrorContains(t, err, "IdempotencyWindow is 5m0s, want more than all retries of Retry together")
	config = f.config()
	config.Middleware = []delivery.Middleware{func(delivery.Handler) delivery.Handler { return nil }}
	_, err = delivery.NewConsumer(f.transport, func(context.Context, delivery.Message) error { return nil }, config)
	require.ErrorContains(t, err, "Middleware[0] returned a nil Handler")
	require.ErrorIs(t, (*delivery.Consumer)(nil).Run(t.Context()), delivery.ErrConfig)
	require.ErrorIs(t, new(delivery.Consumer).Run(t.Context()), delivery.ErrConfig)
}

// A claim that could not be released does not keep its own message from being
// handled.
func TestAClaimThatCouldNotBeReleased(t *testing.T) {
	for name, release := range map[string]func() error{
		"the store is down": func() error { return errDown },
		"the store panics":  func() error { panic("release") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.KeyBreakers = breaker.NewSet(breaker.SetConfig{})
				config.BreakerKey = func(m delivery.Message) string { return m.Type }
				config.KeyBreakers.Get("key").ForceOpen(500 * time.Millisecond)
				calls := 0
				f.store.fail = func(step string) error {
					if calls++; step == "release" && calls < 4 {
						return release()
					}
					return nil
				}
				_, stop := f.consume(fine, config)
				f.publish(delivery.Message{ID: "a", Recipient: "r", Type: "key"})
				wait(5 * time.Second)
				assert.Equal(t, []int{1}, f.attempts("a"))
				require.NoError(t, stop())
				f.empty()
			})
		})
	}
}
