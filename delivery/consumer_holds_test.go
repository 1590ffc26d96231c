package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// Whatever keeps messages in hand, it keeps no more than half of what may be there:
// a message that can run does so soon.
func TestWhatIsHeldLeavesRoom(t *testing.T) {
	const prefetch = 10
	keyBreakers := func(config *delivery.ConsumerConfig, breakers breaker.Config) *breaker.Set {
		config.KeyBreakers = breaker.NewSet(breaker.SetConfig{Breaker: breakers})
		config.BreakerKey = func(m delivery.Message) string { return m.Type }
		return config.KeyBreakers
	}
	slow := func(ctx context.Context) error {
		select {
		case <-time.After(5 * time.Minute):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for name, test := range map[string]struct {
		configure func(config *delivery.ConsumerConfig)
		waiting   func(i int) delivery.Message // one of those that wait
		handler   func(ctx context.Context) error
		lettersAt int // of the waiting ones, how many may become dead letters
	}{
		"failing recipients, in order": {
			configure: func(config *delivery.ConsumerConfig) {
				config.Ordered = true
				config.Retry = retry.Exponential{Base: 30 * time.Second, MaxRetries: 10}
			},
			waiting: func(i int) delivery.Message {
				return delivery.Message{ID: fmt.Sprint(i), Recipient: fmt.Sprint("bad", i)}
			},
			handler:   func(context.Context) error { return errDown },
			lettersAt: prefetch,
		},
		"few failing recipients with lines behind them": {
			configure: func(config *delivery.ConsumerConfig) {
				config.Ordered, config.OnHoldExceeded = true, delivery.HoldPassBy
				config.Retry = retry.Exponential{Base: 30 * time.Second, MaxRetries: 10}
			},
			waiting: func(i int) delivery.Message {
				return delivery.Message{ID: fmt.Sprint(i), Recipient: fmt.Sprint("bad", i%3)}
			},
			handler: func(context.Context) error { return errDown },
		},
		"an open key, in order": {
			configure: func(config *delivery.ConsumerConfig) {
				config.Ordered = true
				keyBreakers(config, breaker.Config{}).Get("dead").ForceOpen(2 * time.Hour)
			},
			waiting: func(i int) delivery.Message {
				return delivery.Message{ID: fmt.Sprint(i), Recipient: fmt.Sprint("bad", i), Type: "dead"}
			},
			lettersAt: prefetch,
		},
		"an open key, in order, passed by": {
			configure: func(config *delivery.ConsumerConfig) {
				config.Ordered, config.OnHoldExceeded = true, delivery.HoldPassBy
				keyBreakers(config, breaker.Config{}).Get("dead").ForceOpen(2 * time.Hour)
			},
			waiting: func(i int) delivery.Message {
				return delivery.Message{ID: fmt.Sprint(i), Recipient: fmt.Sprint("bad", i), Type: "dead"}
			},
		},
		"a half-open key with a slow probe": {
			configure: func(config *delivery.ConsumerConfig) {
				config.HandlerTimeout = 10 * time.Minute
				breakers := keyBreakers(config, breaker.Config{SampleSize: 1, OpenFor: time.Second, ProbeTimeout: time.Hour})
				permit, err := breakers.Get("dead").Allow()
				if err != nil {
					panic(err)
				}
				permit.Done(breaker.Failure)
				<-time.After(2 * time.Second)
			},
			waiting: func(i int) delivery.Message {
				return delivery.Message{ID: fmt.Sprint(i), Recipient: "r", Type: "dead"}
			},
			handler: slow,
		},
		"copies of a busy key": {
			configure: func(config *delivery.ConsumerConfig) { config.HandlerTimeout = 10 * time.Minute },
			waiting: func(i int) delivery.Message {
				return delivery.Message{ID: fmt.Sprint(i), IdempotencyKey: "same", Recipient: "r"}
			},
			handler: slow,
		},
		"copies of a busy key, in order": {
			configure: func(config *delivery.ConsumerConfig) {
				config.Ordered, config.HandlerTimeout = true, 10*time.Minute
			},
			waiting: func(i int) delivery.Message {
				return delivery.Message{ID: fmt.Sprint(i), IdempotencyKey: "same", Recipient: fmt.Sprint("r", i)}
			},
			handler: slow,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.Prefetch = prefetch
				test.configure(&config)
				good := make(chan time.Time, 1)
				_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
					if m.ID == "good" {
						good <- time.Now()
						return nil
					}
					return test.handler(ctx)
				}, config)
				begin := time.Now()
				for i := range prefetch {
					f.publish(test.waiting(i))
				}
				f.publish(delivery.Message{ID: "good", Recipient: "good", Type: "alive"})
				assert.Less(t, (<-good).Sub(begin), 5*time.Second)
				assert.LessOrEqual(t, f.sink.count(), test.lettersAt)
				require.NoError(t, stop())
			})
		})
	}
}

// A message that stepped aside is handled when its time comes.
func TestWhatSteppedAsideIsHandled(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Prefetch = 4
		config.HandlerTimeout = 10 * time.Minute
		_, stop := f.consume(func(context.Context, delivery.Message) error {
			<-time.After(5 * time.Minute)
			return nil
		}, config)
		for i := range 8 {
			f.publish(delivery.Message{ID: fmt.Sprint(i), IdempotencyKey: "same", Recipient: "r"})
		}
		wait(6 * time.Minute)
		assert.Equal(t, 1, f.processed("delivered"))
		assert.Equal(t, 7, f.processed("duplicate"))
		require.NoError(t, stop())
		f.empty()
	})
}

// A message that held up its recipient for too long is settled with its claim, which
// it kept: a copy that comes again is a duplicate, and attempts are those allowed.
func TestWhatHeldUpItsRecipientIsMarked(t *testing.T) {
	for name, test := range map[string]struct {
		policy   delivery.HoldPolicy
		attempts []int
		letters  int
	}{
		"given up":  {delivery.HoldDeadLetter, []int{1}, 1},
		"passed by": {delivery.HoldPassBy, []int{1, 2, 3, 4}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				var lose sync.Once
				f.transport.loseAck = func(id string) (lost bool) {
					if id == "head" {
						lose.Do(func() { lost = true })
					}
					return lost
				}
				config := f.config()
				config.Ordered, config.Prefetch, config.OnHoldExceeded = true, 4, test.policy
				config.Retry = retry.Exponential{Base: time.Minute, MaxRetries: 3}
				_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
					if m.ID == "head" {
						return errDown
					}
					return nil
				}, config)
				f.publish(delivery.Message{ID: "head", Recipient: "r"})
				for i := range 3 {
					f.publish(delivery.Message{ID: fmt.Sprint(i), Recipient: "r"})
				}
				wait(time.Hour)
				assert.Equal(t, test.attempts, f.attempts("head"))
				assert.Equal(t, test.letters, f.sink.count())
				assert.Equal(t, 3, f.processed("delivered"))
				assert.Equal(t, 1, f.processed("duplicate"))
				require.NoError(t, stop())
				f.empty()
			})
		})
	}
}

// A recipient whose message fails for a moment keeps its order, however many of its
// messages are in hand.
func TestABriefHoldTakesWhatRoomItNeeds(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered, config.Prefetch, config.ImmediateRetries = true, 10, -1
		config.Retry = retry.Exponential{Base: 20 * time.Millisecond, MaxRetries: 5}
		var done []string
		_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
			if attempt, _ := delivery.AttemptFrom(ctx); attempt.Number < 3 {
				return errDown
			}
			done = append(done, m.ID)
			return nil
		}, config)
		var want []string
		for i := range 30 {
			want = append(want, fmt.Sprint(i))
			f.publish(delivery.Message{ID: want[i], Recipient: "r"})
		}
		wait(time.Minute)
		require.NoError(t, stop())
		assert.Equal(t, want, done)
		assert.Zero(t, f.sink.count())
	})
}

// Crowds that have gone take no room: a message that fails after them is held as
// before them.
func TestCrowdsLeaveNoTrace(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered, config.Prefetch = true, 10
		config.Retry = retry.Exponential{Base: 30 * time.Second, MaxRetries: 2}
		failing := []byte("fails")
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.Body == nil {
				return nil
			}
			<-time.After(time.Second) // meanwhile the others get in line
			return errDown
		}, config)
		for _, crowd := range []string{"a", "b"} {
			f.publish(delivery.Message{ID: crowd, Recipient: crowd, Body: failing})
			for i := range 9 {
				f.publish(delivery.Message{ID: fmt.Sprint(crowd, i), Recipient: crowd})
			}
			wait(time.Hour)
		}
		assert.Equal(t, 18, f.processed("delivered"))
		f.publish(delivery.Message{ID: "late", Recipient: "late", Body: failing})
		wait(time.Hour)
		assert.Equal(t, []int{1, 2, 3}, f.attempts("late"))
		require.NoError(t, stop())
		f.empty()
	})
}

// Neither does a copy run of a message that was given up because its key's breaker was
// open and the room was needed.
func TestWhatABreakerHeldUpIsMarked(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Ordered, config.Prefetch = true, 4
		config.KeyBreakers = breaker.NewSet(breaker.SetConfig{})
		config.BreakerKey = func(m delivery.Message) string { return m.Type }
		config.KeyBreakers.Get("dead").ForceOpen(time.Hour)
		var lose sync.Once
		f.transport.loseAck = func(id string) (lost bool) {
			if id == "head" {
				lose.Do(func() {
					lost = true
					config.KeyBreakers.Get("dead").ForceClosed(time.Hour) // the copy could run
				})
			}
			return lost
		}
		_, stop := f.consume(fine, config)
		f.publish(delivery.Message{ID: "head", Recipient: "r", Type: "dead"})
		for i := range 3 {
			f.publish(delivery.Message{ID: fmt.Sprint(i), Recipient: "r"})
		}
		wait(time.Minute)
		assert.Equal(t, 1, f.sink.count())
		assert.Empty(t, f.attempts("head"))
		assert.Equal(t, 3, f.processed("delivered"))
		assert.Equal(t, 1, f.processed("duplicate"))
		require.NoError(t, stop())
		f.empty()
	})
}

// What a message has waited when its hold has to end is part of its wait.
func TestWhatStepsAsideWaitsNoLongerThanItHasTo(t *testing.T) {
	for name, wire := range map[string]func(f *fixture, config *delivery.ConsumerConfig) delivery.Transport{
		"in the transport": func(f *fixture, _ *delivery.ConsumerConfig) delivery.Transport { return f.transport },
		"in the store": func(f *fixture, config *delivery.ConsumerConfig) delivery.Transport {
			config.Store = f.outboxed(delivery.PublisherConfig{})
			f.run(f.newWorker(f.records, f.transport, delivery.RetryWorkerConfig{DeadLetters: f.sink}))
			return f.transport
		},
		"in hand": func(f *fixture, config *delivery.ConsumerConfig) delivery.Transport {
			config.Name = "memory"
			return withoutDelays{f.transport}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.Ordered, config.Prefetch, config.OnHoldExceeded = true, 4, delivery.HoldPassBy
				config.Retry = retry.Exponential{Base: time.Minute, MaxRetries: 1}
				transport := wire(f, &config)
				begin := time.Now()
				var runs []time.Duration
				_, stop := f.consumeFrom(transport, func(_ context.Context, m delivery.Message) error {
					if m.ID == "head" {
						runs = append(runs, time.Since(begin).Round(time.Second))
						return errDown
					}
					return nil
				}, config)
				f.publish(delivery.Message{ID: "head", Recipient: "r"})
				wait(40 * time.Second)
				for i := range 3 {
					f.publish(delivery.Message{ID: fmt.Sprint(i), Recipient: "r"})
				}
				wait(time.Second)
				assert.Equal(t, 3, f.processed("delivered"))
				wait(time.Hour)
				assert.Equal(t, []time.Duration{0, time.Minute}, runs)
				require.NoError(t, stop())
			})
		})
	}
}
