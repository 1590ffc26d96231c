package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// panickingMetrics is a recorder whose instruments panic.
type panickingMetrics struct{}

func (p panickingMetrics) Counter(string, ...string) metrics.Counter     { return p }
func (p panickingMetrics) Histogram(string, ...string) metrics.Histogram { return p }
func (p panickingMetrics) Gauge(string, ...string) metrics.Gauge         { return p }
func (panickingMetrics) Add(int64)                                       { panic("Add") }
func (panickingMetrics) Observe(float64)                                 { panic("Observe") }
func (panickingMetrics) Set(float64)                                     { panic("Set") }

// panicking is a host's code that panics from the moment in which it is armed: an
// error, a retry policy, a rule, a recorder, a log handler.
type panicking struct {
	armed bool
	metrics.Recorder
	slog.Handler
}

func (p *panicking) Error() string             { panic("Error") }
func (p *panicking) Unwrap() error             { panic("Unwrap") }
func (p *panicking) StatusCode() int           { panic("StatusCode") }
func (p *panicking) RetryDelay() time.Duration { panic("RetryDelay") }

func (p *panicking) CanRetry(n int) bool {
	if p.armed {
		panic("CanRetry")
	}
	return n < 3
}

func (p *panicking) Delay(int) time.Duration {
	if p.armed {
		panic("Delay")
	}
	return time.Second
}

func (p *panicking) rule(error) (retry.Class, bool) { panic("rule") }

func (p *panicking) Handle(context.Context, slog.Record) error { panic("Handle") }
func (p *panicking) Enabled(context.Context, slog.Level) bool  { return true }

// neverEnabled is a log handler that panics when it is asked whether it is enabled.
type neverEnabled struct{ slog.Handler }

func (neverEnabled) Enabled(context.Context, slog.Level) bool { panic("Enabled") }

// What the host's functions panic with ends neither the process nor the message's
// way, and the handler's outcome stays what it was.
func TestPanicsOfTheHost(t *testing.T) {
	failing := errors.New("failing")
	for name, test := range map[string]struct {
		wire    func(config *delivery.ConsumerConfig, p *panicking)
		err     func(p *panicking) error // of the handler; nil: it succeeds
		runs    int
		letters int
		reason  delivery.Reason
	}{
		"error's methods": {
			err:  func(p *panicking) error { return p },
			runs: 4, letters: 1, reason: delivery.ReasonExhausted,
		},
		"error's methods, within another": {
			err:  func(p *panicking) error { return errors.Join(p, failing) },
			runs: 4, letters: 1, reason: delivery.ReasonExhausted,
		},
		"panic value's methods": {
			err:  func(p *panicking) error { panic(p) },
			runs: 4, letters: 1, reason: delivery.ReasonExhausted,
		},
		"policy": {
			wire: func(config *delivery.ConsumerConfig, p *panicking) { config.Retry = p },
			err:  func(p *panicking) error { p.armed = true; return failing },
			runs: 1, letters: 1, reason: delivery.ReasonExhausted,
		},
		"rule": {
			wire: func(config *delivery.ConsumerConfig, p *panicking) {
				config.Classifier.Rules = []retry.Rule{p.rule}
			},
			err:  func(*panicking) error { return failing },
			runs: 4, letters: 1, reason: delivery.ReasonExhausted,
		},
		"log": {
			wire: func(config *delivery.ConsumerConfig, p *panicking) { config.Logger = slog.New(p) },
			runs: 1,
		},
		"log that is asked whether it is enabled": {
			wire: func(config *delivery.ConsumerConfig, _ *panicking) { config.Logger = slog.New(neverEnabled{}) },
			runs: 1,
		},
		"metrics": {
			wire: func(config *delivery.ConsumerConfig, p *panicking) { config.Metrics = panickingMetrics{} },
			runs: 1,
		},
		"metrics of a failure": {
			wire: func(config *delivery.ConsumerConfig, p *panicking) { config.Metrics = panickingMetrics{} },
			err:  func(*panicking) error { return failing },
			runs: 4, letters: 1, reason: delivery.ReasonExhausted,
		},
		"log of a failure": {
			wire: func(config *delivery.ConsumerConfig, p *panicking) { config.Logger = slog.New(p) },
			err:  func(*panicking) error { return retry.Permanent(failing) },
			runs: 1, letters: 1, reason: delivery.ReasonPermanent,
		},
		"breaker's observer": {
			wire: func(config *delivery.ConsumerConfig, _ *panicking) {
				config.Breaker = breaker.New(breaker.Config{SampleSize: 1, Threshold: 1, OpenFor: time.Second, OnChange: func(breaker.Change) {
					panic("OnChange")
				}})
			},
			err:  func(*panicking) error { return failing },
			runs: 4, letters: 1, reason: delivery.ReasonExhausted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				p := &panicking{Recorder: f.collector}
				if test.wire != nil {
					test.wire(&config, p)
				}
				_, stop := f.consume(func(context.Context, delivery.Message) error {
					if test.err == nil {
						return nil
					}
					return test.err(p)
				}, config)
				f.publish(to("a"))
				wait(time.Minute)
				assert.Len(t, f.attempts("a"), test.runs)
				assert.Equal(t, test.letters, f.sink.count())
				if test.letters > 0 {
					assert.Equal(t, test.reason, f.sink.only(t).Reason)
				}
				require.NoError(t, stop())
				f.empty()
			})
		})
	}
}

// An observer that panics when the breaker closes does not make a success a failure.
func TestPanicAfterTheEffectRepeatsNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Breaker = breaker.New(breaker.Config{SampleSize: 1, Threshold: 1, OpenFor: time.Second, OnChange: func(c breaker.Change) {
			if c.To == breaker.Closed {
				panic("observer")
			}
		}})
		_, stop := f.consume(func(ctx context.Context, _ delivery.Message) error {
			if attempt, _ := delivery.AttemptFrom(ctx); attempt.Number == 1 {
				return errDown
			}
			return nil
		}, config)
		f.publish(to("a"))
		wait(time.Minute)
		assert.Equal(t, []int{1, 2}, f.attempts("a"))
		assert.Equal(t, 1, f.processed(metrics.OutcomeDelivered))
		require.NoError(t, stop())
	})
}

// panickyStore panics at a step, once.
func panickyStore(step string) func(string) error {
	var once sync.Once
	return func(at string) error {
		if at == step {
			once.Do(func() { panic(step) })
		}
		return nil
	}
}

// A store that panics is a store that failed.
func TestPanicsOfStores(t *testing.T) {
	for _, step := range []string{"claim", "complete", "schedule"} {
		t.Run(step, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.store.fail = panickyStore(step)
				_, stop := f.consume(failUntil2, f.config())
				f.publish(to("a"))
				wait(time.Minute)
				assert.Equal(t, []int{1, 2}, f.attempts("a"))
				assert.Equal(t, 1, f.processed(metrics.OutcomeDelivered))
				require.NoError(t, stop())
				f.empty()
			})
		})
	}
}

func failUntil2(ctx context.Context, _ delivery.Message) error {
	if attempt, _ := delivery.AttemptFrom(ctx); attempt.Number < 2 {
		return errDown
	}
	return nil
}

// A body is in no error and no log, whatever its decoder says.
func TestNothingOfABodyIsLogged(t *testing.T) {
	type order struct {
		Born   time.Time `json:"born"`
		Number int8      `json:"number"`
	}
	const secret = "4111-1111"
	for name, body := range map[string]string{
		"value of a type's own": `{"born":"secret-4111-1111"}`,
		"number out of range":   `{"number":41111111}`,
		"no JSON":               `secret 4111-1111`,
		"other type":            `{"number":"4111-1111"}`,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				var log lockedBuffer
				config := f.config()
				config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				_, stop := f.consume(delivery.JSON(func(context.Context, order) error { return nil }), config)
				f.publish(delivery.Message{ID: "a", Recipient: "r", Body: []byte(body)})
				wait(time.Second)
				letter := f.sink.only(t)
				assert.Equal(t, delivery.ReasonPermanent, letter.Reason)
				for _, text := range []string{log.String(), letter.Error, letter.Envelope.History[0].Error} {
					assert.Contains(t, text, "can't be decoded as delivery_test.order")
					assert.NotContains(t, text, secret)
					assert.NotContains(t, text, strconv.Itoa(41111111))
				}
				require.NoError(t, stop())
			})
		})
	}
}

// lockedBuffer is a buffer for the log.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// A policy that panics can't be configured.
func TestPanicOfThePolicyInAConfig(t *testing.T) {
	_, err := delivery.NewConsumer(memory.New(memory.Config{}), func(context.Context, delivery.Message) error { return nil }, delivery.ConsumerConfig{
		Name: "c", Retry: &panicking{armed: true}, Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{}),
	})
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorContains(t, err, "ConsumerConfig.Retry")
}

// A worker outlives its policy's panic: the overdue message becomes a dead letter.
func TestPanicOfTheWorkersPolicy(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("a", delivery.StatusSent, time.Now()))
		config := f.workerConfig()
		config.Retry = &panicking{armed: true}
		stop := f.run(f.newWorker(f.records, f.outlet, config))
		wait(time.Minute)
		stop()
		require.Equal(t, delivery.StatusFailed, f.get("a").Status)
		require.Contains(t, f.get("a").FailureReason(), "panic: CanRetry")
	})
}
