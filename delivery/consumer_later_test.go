package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

var errOff = errors.New("phone is off")

// laterSettings are those in which a message waits in different places.
var laterSettings = map[string]func(f *fixture, config *delivery.ConsumerConfig) (transport delivery.Transport, stop func()){
	"in the transport": func(f *fixture, _ *delivery.ConsumerConfig) (delivery.Transport, func()) {
		return f.transport, func() {}
	},
	"in the transport, recorded": func(f *fixture, config *delivery.ConsumerConfig) (delivery.Transport, func()) {
		f.recordsOnly()
		config.Store = delivery.RecordsOnly(f.records)
		return f.transport, func() {}
	},
	"in the store": func(f *fixture, config *delivery.ConsumerConfig) (delivery.Transport, func()) {
		config.Store = f.outboxed(delivery.PublisherConfig{})
		return f.transport, f.run(f.newWorker(f.records, f.transport, f.workerConfig()))
	},
	"in hand": func(f *fixture, config *delivery.ConsumerConfig) (delivery.Transport, func()) {
		config.Name = "memory"
		return withoutDelays{f.transport}, func() {}
	},
	"in hand, in order": func(f *fixture, config *delivery.ConsumerConfig) (delivery.Transport, func()) {
		config.Ordered, config.MaxHold = true, 24*time.Hour
		return f.transport, func() {}
	},
	"nowhere known": func(f *fixture, config *delivery.ConsumerConfig) (delivery.Transport, func()) {
		config.Idempotency = nil
		return f.transport, func() {}
	},
}

// A message may be put off any number of times: nothing counts that.
func TestLaterCountsNothing(t *testing.T) {
	for name, set := range laterSettings {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				const times = 20
				config := f.config()
				config.Retry = nil // a failure would be the end
				config.MaxCrashes = 1
				config.Breaker = breaker.New(breaker.Config{SampleSize: 1})
				config.Logger = slog.New(slog.NewTextHandler(f.log, nil))
				transport, end := set(f, &config)
				var ran []time.Time
				_, stop := f.consumeFrom(transport, func(_ context.Context, m delivery.Message) error {
					if ran = append(ran, time.Now()); len(ran) <= times {
						return retry.Later(time.Hour, fmt.Errorf("to %s: %w", m.ID, errOff))
					}
					return nil
				}, config)
				f.publish(to("a"))
				wait((times + 1) * time.Hour)
				require.NoError(t, stop())
				end()
				assert.Equal(t, slices.Repeat([]int{1}, times+1), f.attempts("a"))
				for i := range times {
					assert.InDelta(t, time.Hour, ran[i+1].Sub(ran[i]), float64(100*time.Millisecond))
				}
				assert.Zero(t, f.sink.count())
				assert.Equal(t, breaker.Closed, config.Breaker.State())
				assert.Equal(t, times, f.processed(metrics.OutcomePostponed))
				assert.Equal(t, 1, f.processed(metrics.OutcomeDelivered))
				assert.Zero(t, f.processed(metrics.OutcomeRetried)+f.processed(metrics.OutcomeAbandoned))
				assert.Equal(t, times, f.log.count(`level=INFO msg="message postponed" message_id=a attempt=1 delay=1h0m0s error="to a: phone is off"`), f.log.read())
				if config.Store != nil {
					record := f.get("a")
					assert.Equal(t, delivery.StatusDelivered, record.Status)
					assert.Zero(t, record.RetryCount)
					assert.Empty(t, record.History)
				}
				f.empty()
			})
		})
	}
}

// A message that loses its use meanwhile is given up at that time.
func TestLaterEndsWhenTheMessageExpires(t *testing.T) {
	for name, set := range laterSettings {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				transport, end := set(f, &config)
				_, stop := f.consumeFrom(transport, func(context.Context, delivery.Message) error {
					return retry.Later(time.Hour, errOff)
				}, config)
				begin := time.Now()
				f.publish(delivery.Message{ID: "a", Recipient: "r", ExpiresAt: begin.Add(150 * time.Minute)})
				wait(149 * time.Minute)
				assert.Zero(t, f.sink.count())
				wait(2 * time.Minute)
				letter := f.sink.only(t)
				assert.Equal(t, delivery.ReasonExpired, letter.Reason)
				assert.WithinDuration(t, begin.Add(150*time.Minute), letter.At, time.Second)
				assert.Zero(t, letter.Envelope.Attempt)
				assert.Equal(t, []int{1, 1, 1}, f.attempts("a"))
				require.NoError(t, stop())
				end()
				f.empty()
			})
		})
	}
}

// The wait is bounded: nothing that isn't counted runs without a pause.
func TestLaterDelays(t *testing.T) {
	const year = 365 * 24 * time.Hour
	asksNot := errors.New("asks for no wait")
	for name, test := range map[string]struct {
		err  error
		want time.Duration
	}{
		"negative":            {retry.Later(-time.Hour, errOff), time.Second},
		"none":                {retry.Later(0, errOff), time.Second},
		"short":               {retry.Later(time.Millisecond, errOff), time.Second},
		"a second":            {retry.Later(time.Second, errOff), time.Second},
		"beyond the ladder":   {retry.Later(100*24*time.Hour, errOff), 100 * 24 * time.Hour},
		"ten years":           {retry.Later(10*year, errOff), year},
		"for ever":            {retry.Later(1<<63-1, errOff), year},
		"by a rule":           {asksNot, 4 * time.Second},
		"by a rule, after":    {errors.Join(asksNot, retry.After(time.Minute, errOff)), time.Minute},
		"outermost mark":      {retry.Later(time.Minute, retry.Permanent(errOff)), time.Minute},
		"over MaxRetryAfter":  {retry.Later(2*time.Hour, errOff), 2 * time.Hour},
		"of a broken network": {retry.Later(time.Minute, context.DeadlineExceeded), time.Minute},
	} {
		for place, set := range laterSettings {
			t.Run(name+", "+place, func(t *testing.T) {
				bubble(t, func(f *fixture) {
					config := f.config()
					config.Retry = retry.Exponential{Base: 4 * time.Second, MaxRetries: 3}
					config.Classifier.Rules = []retry.Rule{func(err error) (retry.Class, bool) {
						return retry.ClassLater, errors.Is(err, asksNot)
					}}
					transport, end := set(f, &config)
					config.MaxHold = 2 * year
					config.Idempotency, config.Metrics = nil, nil // what they do now and then adds up in a year
					_, stop := f.consumeFrom(transport, func(context.Context, delivery.Message) error {
						if len(f.attempts("a")) == 1 {
							return test.err
						}
						return nil
					}, config)
					f.publish(to("a"))
					synctest.Wait()
					end() // a worker of a year would take long
					wait(test.want - time.Second/2)
					assert.Len(t, f.attempts("a"), 1)
					require.NoError(t, f.newWorker(f.records, f.transport, f.workerConfig()).RunOnce(context.Background()))
					synctest.Wait()
					assert.Len(t, f.attempts("a"), 1)
					wait(time.Second)
					if place == "in the store" {
						require.NoError(t, f.newWorker(f.records, f.transport, f.workerConfig()).RunOnce(context.Background()))
					}
					wait(time.Second)
					assert.Equal(t, []int{1, 1}, f.attempts("a"))
					require.NoError(t, stop())
				})
			})
		}
	}
}

// A transport that delays for less than was asked for brings the message early, and it
// waits on.
func TestLaterOverWhatTheTransportCan(t *testing.T) {
	bubble(t, func(f *fixture) {
		short := &shortDelays{f.transport}
		_, stop := f.consumeFrom(short, func(context.Context, delivery.Message) error {
			if len(f.attempts("a")) == 1 {
				return retry.Later(time.Hour, errOff)
			}
			return nil
		}, f.config())
		f.publish(to("a"))
		wait(59 * time.Minute)
		assert.Len(t, f.attempts("a"), 1)
		wait(2 * time.Minute)
		assert.Len(t, f.attempts("a"), 2)
		require.NoError(t, stop())
		f.empty()
	})
}

// shortDelays is a transport that delays by ten minutes at most.
type shortDelays struct{ *faultyTransport }

func (s *shortDelays) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	return s.faultyTransport.SendAfter(ctx, min(delay, 10*time.Minute), batch)
}

// Only a handler that returns can say that it is not the time.
func TestWhatIsNotLater(t *testing.T) {
	t.Run("a panic", func(t *testing.T) {
		bubble(t, func(f *fixture) {
			_, stop := f.consume(func(context.Context, delivery.Message) error { panic(retry.Later(time.Hour, errOff)) }, f.config())
			f.publish(to("a"))
			wait(10 * time.Hour)
			assert.Equal(t, []int{1, 2, 3, 4}, f.attempts("a"))
			assert.Equal(t, delivery.ReasonExhausted, f.sink.only(t).Reason)
			require.NoError(t, stop())
		})
	})
	t.Run("a shutdown", func(t *testing.T) {
		bubble(t, func(f *fixture) {
			config := f.config()
			config.DrainTimeout = time.Second
			_, stop := f.consume(func(ctx context.Context, _ delivery.Message) error {
				<-ctx.Done()
				return retry.Later(time.Hour, ctx.Err())
			}, config)
			f.publish(to("a"))
			wait(time.Second)
			require.NoError(t, stop())
			assert.Equal(t, 1, f.processed(metrics.OutcomeAbandoned))
			assert.EqualValues(t, 1, f.waiting(), "there for whoever comes next")
		})
	})
	t.Run("a stale receipt", func(t *testing.T) {
		bubble(t, func(f *fixture) {
			_, stop := f.consume(func(context.Context, delivery.Message) error {
				if f.transport.lost.Add(1); len(f.attempts("a")) == 1 {
					return retry.Later(time.Hour, errOff)
				}
				f.transport.lost.Add(-1)
				return nil
			}, f.config())
			f.publish(to("a"))
			wait(10 * time.Second)
			assert.Zero(t, f.waiting(), "a copy beside the one that comes again")
			require.NoError(t, stop())
			assert.Zero(t, f.processed(metrics.OutcomePostponed))
		})
	})
}

// In ordered mode a recipient's messages wait behind the one that was put off, and
// those of others go on.
func TestLaterKeepsTheOrder(t *testing.T) {
	for name, test := range map[string]struct {
		delay   time.Duration
		policy  delivery.HoldPolicy
		want    []string
		letters int
	}{
		"within MaxHold":                         {4 * time.Minute, delivery.HoldDeadLetter, []string{"off-1", "on-1", "on-2", "off-1", "off-2", "off-3"}, 0},
		"longer, to become a dead letter":        {6 * time.Minute, delivery.HoldDeadLetter, []string{"off-1", "on-1", "off-2", "on-2", "off-3"}, 1},
		"longer, to be passed by":                {6 * time.Minute, delivery.HoldPassBy, []string{"off-1", "on-1", "off-2", "on-2", "off-3", "off-1"}, 0},
		"within MaxHold, though to be passed by": {4 * time.Minute, delivery.HoldPassBy, []string{"off-1", "on-1", "on-2", "off-1", "off-2", "off-3"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.Ordered, config.OnHoldExceeded, config.Concurrency = true, test.policy, 1
				config.Store = f.outboxed(delivery.PublisherConfig{})
				end := f.run(f.newWorker(f.records, f.transport, f.workerConfig()))
				var order []string
				_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
					if order = append(order, m.ID); len(order) == 1 {
						return retry.Later(test.delay, errOff)
					}
					return nil
				}, config)
				for i := 1; i <= 3; i++ {
					f.publish(delivery.Message{ID: fmt.Sprint("off-", i), Recipient: "off"})
					if i < 3 {
						f.publish(delivery.Message{ID: fmt.Sprint("on-", i), Recipient: "on"})
					}
				}
				wait(time.Hour)
				require.NoError(t, stop())
				end()
				assert.Equal(t, test.letters, f.sink.count())
				if test.policy == delivery.HoldDeadLetter && test.letters > 0 {
					assert.Equal(t, "off-1", f.sink.only(t).Envelope.ID)
					assert.Contains(t, f.sink.only(t).Error, "held up its recipient for too long: phone is off")
					assert.Zero(t, f.sink.only(t).Envelope.Attempt)
				}
				// What one recipient gets does not depend on what the other does.
				for _, recipient := range []string{"off", "on-"} {
					assert.Equal(t, of(recipient, test.want), of(recipient, order))
				}
			})
		})
	}
}

// of are those of ids that begin so.
func of(prefix string, ids []string) (found []string) {
	for _, id := range ids {
		if id[:3] == prefix {
			found = append(found, id)
		}
	}
	return found
}

// The process dies just before the postponement is durable, or just after it: the
// message is there in both cases, and its attempt is not counted.
func TestACrashWhileAMessageIsPutOff(t *testing.T) {
	for name, test := range map[string]struct {
		stored bool
		crash  func(f *fixture, dies func() bool)
	}{
		"before the store has it": {true, func(f *fixture, dies func() bool) {
			f.records.fail = func(operation string) error {
				if operation == "update retrying" && dies() {
					return errDown
				}
				return nil
			}
		}},
		"after the store has it": {true, func(f *fixture, dies func() bool) {
			f.records.lost = func(operation string) error {
				if operation == "update retrying" && dies() {
					return errDown
				}
				return nil
			}
		}},
		"before the transport has it": {false, func(f *fixture, dies func() bool) {
			f.transport.onSend = func(delay time.Duration, _ delivery.Envelope) error {
				if delay > 0 && dies() {
					return errDown
				}
				return nil
			}
		}},
		"before the ack": {false, func(f *fixture, dies func() bool) {
			f.transport.loseAck = func(string) bool { return dies() }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.Retry, config.MaxCrashes = nil, 1
				end := func() {}
				if test.stored {
					config.Store = f.outboxed(delivery.PublisherConfig{})
					end = f.run(f.newWorker(&faultyRecords{Store: f.records.Store}, f.transport, f.workerConfig()))
				}
				process, next := newProcess(), atomic.Bool{}
				test.crash(f, func() bool {
					if next.Load() {
						return false
					}
					process.die()
					return true
				})
				_, stop := f.consume(func(ctx context.Context, _ delivery.Message) error {
					select {
					case <-process.died: // and so does nothing any more
						<-ctx.Done()
					default:
					}
					return retry.Later(time.Hour, errOff)
				}, config)
				f.publish(to("a"))
				<-process.died
				require.NoError(t, stop())
				next.Store(true)
				wait(2 * time.Minute) // the lease ends

				_, stop = f.consume(fine, config)
				wait(2 * time.Hour)
				require.NoError(t, stop())
				end()
				runs := f.attempts("a")
				assert.Equal(t, slices.Repeat([]int{1}, len(runs)), runs)
				assert.LessOrEqual(t, len(runs), 3, "one more, and another that came before the process had ended")
				assert.Equal(t, 1, f.processed(metrics.OutcomeDelivered))
				assert.Zero(t, f.sink.count())
				f.empty()
			})
		})
	}
}

// An old copy of a message stays stale, whatever becomes of the attempt that came after
// it.
func TestOldCopiesStayStale(t *testing.T) {
	for name, test := range map[string]struct {
		second func(ctx context.Context) error // the second attempt
	}{
		"put off": {func(context.Context) error { return retry.Later(10*time.Minute, errOff) }},
		"given back": {func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.DrainTimeout = time.Second
				handler := func(ctx context.Context, _ delivery.Message) error {
					switch len(f.attempts("a")) {
					case 1:
						return errDown
					case 2:
						return test.second(ctx)
					default:
						return nil
					}
				}
				_, stop := f.consume(handler, config)
				f.publish(to("a"))
				wait(5 * time.Second)
				require.NoError(t, stop())
				require.Equal(t, []int{1, 2}, f.attempts("a"))

				old := to("a")
				old.Priority = delivery.Urgent // comes first
				require.Nil(t, f.transport.Send(context.Background(), []delivery.Envelope{{Message: old}}))
				_, stop = f.consume(handler, config)
				wait(time.Hour)
				require.NoError(t, stop())
				assert.Equal(t, []int{1, 2, 2}, f.attempts("a"))
				f.empty()
			})
		})
	}
}

// Whatever happens to a message, its attempts are those that failed: to put it off, to
// deliver it again, and to lose what was said about it count nothing.
func TestLaterProperty(t *testing.T) {
	for _, stored := range []bool{false, true} {
		t.Run(fmt.Sprint("stored ", stored), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				steps := rapid.SliceOfN(rapid.SampledFrom([]string{"later", "fail", "later, ack lost", "later, answers lost"}), 0, 12).Draw(rt, "steps")
				bubble(t, func(f *fixture) { f.followSteps(steps, stored) })
			})
		})
	}
}

func (f *fixture) followSteps(steps []string, stored bool) {
	config := f.config()
	config.Retry = retry.Exponential{Base: time.Second, Max: time.Second, MaxRetries: 100}
	config.MaxCrashes, config.Metrics = 1, nil
	var loseAck, loseRelease, loseUpdate atomic.Bool
	f.transport.loseAck = func(string) bool { return loseAck.CompareAndSwap(true, false) }
	f.store.fail = func(step string) error {
		if step == "release" && loseRelease.CompareAndSwap(true, false) {
			return errDown
		}
		return nil
	}
	f.records.lost = func(operation string) error {
		if operation == "update retrying" && loseUpdate.CompareAndSwap(true, false) {
			return errDown
		}
		return nil
	}
	end := func() {}
	if stored {
		config.Store = f.outboxed(delivery.PublisherConfig{})
		worker := f.workerConfig()
		worker.Metrics = nil
		end = f.run(f.newWorker(&faultyRecords{Store: f.records.Store}, f.transport, worker))
	}
	failed := 0
	var want []int
	_, stop := f.consumeFrom(newCounting(f), func(context.Context, delivery.Message) error {
		want = append(want, failed+1)
		if len(want) > len(steps) {
			return nil
		}
		switch steps[len(want)-1] {
		case "fail":
			failed++
			return errDown
		case "later, ack lost":
			loseAck.Store(true)
		case "later, answers lost":
			loseRelease.Store(true)
			loseUpdate.Store(true)
		}
		return retry.Later(time.Minute, errOff)
	}, config)
	f.publish(to("a"))
	wait(time.Duration(len(steps)+2) * 2 * time.Minute)
	require.NoError(f.t, stop())
	end()
	assert.Equal(f.t, want, f.attempts("a"), "%v", steps)
	assert.Len(f.t, want, len(steps)+1, "%v", steps)
	assert.Empty(f.t, f.sink.all(), "%v", steps)
	f.empty()
	if stored {
		record := f.get("a")
		assert.Equal(f.t, failed, record.RetryCount, "%v", steps)
		assert.Equal(f.t, delivery.StatusDelivered, record.Status, "%v", steps)
	}
}
