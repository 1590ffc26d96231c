package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
)

// counting is a transport that counts how often it delivered a message, as the
// quorum queues of a broker do.
type counting struct {
	*faultyTransport
	mu     sync.Mutex
	counts map[string]int
}

func newCounting(f *fixture) *counting {
	return &counting{faultyTransport: f.transport, counts: map[string]int{}}
}

func (c *counting) Send(ctx context.Context, batch []delivery.Envelope) []error {
	c.mu.Lock()
	for i := range batch {
		delete(c.counts, batch[i].ID)
	}
	c.mu.Unlock()
	return c.faultyTransport.Send(ctx, batch)
}

func (c *counting) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	subscription, err := c.faultyTransport.Subscribe(ctx, config)
	return &countingSubscription{subscription, c}, err
}

type countingSubscription struct {
	delivery.Subscription
	transport *counting
}

func (s *countingSubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	batch, err := s.Subscription.Receive(ctx)
	s.transport.mu.Lock()
	defer s.transport.mu.Unlock()
	for i, incoming := range batch {
		envelope, _ := incoming.Envelope()
		batch[i] = countedIncoming{incoming, s.transport.counts[envelope.ID], envelope.Crashes}
		s.transport.counts[envelope.ID]++
	}
	return batch, err
}

type countedIncoming struct {
	delivery.Incoming
	redeliveries, crashes int
}

func (in countedIncoming) Redeliveries() (times, crashes int) { return in.redeliveries, in.crashes }

// process is a host's process that may die. All of its handlers hang from then on,
// as far as anybody else can tell.
type process struct {
	died chan struct{}
	die  func()
}

func newProcess() *process {
	died := make(chan struct{})
	return &process{died: died, die: sync.OnceFunc(func() { close(died) })}
}

// lives runs a process after the other, until one does not die within an hour. It
// returns how many died.
func (f *fixture) lives(transport delivery.Transport, config delivery.ConsumerConfig, handle func(*process, delivery.Message) error) (deaths int) {
	f.t.Helper()
	end := make(chan struct{}) // of the test: then what has hung may end
	f.t.Cleanup(func() { close(end) })
	config.DrainTimeout = time.Second
	for ; deaths < 30; deaths++ {
		p := newProcess()
		_, stop := f.consumeFrom(transport, func(_ context.Context, m delivery.Message) error {
			err := handle(p, m)
			select {
			case <-p.died:
				<-end
			default:
			}
			return err
		}, config)
		select {
		case <-p.died:
		case <-time.After(time.Hour):
			require.NoError(f.t, stop())
			return deaths
		}
		abandoned := &delivery.AbandonedError{}
		require.ErrorAs(f.t, stop(), &abandoned)
		wait(time.Minute) // the leases end
	}
	return deaths
}

// kills is a handler that ends its process a tenth of a second after it began, if it
// is the poison's. The others take a second.
func kills(p *process, m delivery.Message) error {
	if m.ID == "poison" {
		<-time.After(100 * time.Millisecond)
		p.die()
		return nil
	}
	select {
	case <-time.After(time.Second):
	case <-p.died:
	}
	return nil
}

// A message whose handler ends the process becomes a dead letter, and none of those
// that run beside it does.
func TestAMessageThatEndsItsProcess(t *testing.T) {
	for name, test := range map[string]struct {
		change func(f *fixture, config *delivery.ConsumerConfig)
		deaths int // and one more if another was suspected first
		starts string
	}{
		"counted by the store": {func(*fixture, *delivery.ConsumerConfig) {}, 5, "at least 4 times"},
		"counted by the store, in order": {func(_ *fixture, config *delivery.ConsumerConfig) {
			config.Ordered = true
		}, 5, "at least 4 times"},
		"with the default limit": {func(_ *fixture, config *delivery.ConsumerConfig) {
			config.MaxCrashes = 0 // 3 retries and 3
		}, 7, "at least 6 times"},
		"with the least limit": {func(_ *fixture, config *delivery.ConsumerConfig) {
			config.MaxCrashes = 1
		}, 2, "at least 1 times"},
		"counted by the transport": {func(_ *fixture, config *delivery.ConsumerConfig) {
			config.Idempotency = nil
		}, 5, "at least 5 times"},
		"counted by the transport, with a higher limit": {func(_ *fixture, config *delivery.ConsumerConfig) {
			config.Idempotency, config.MaxCrashes = idempotency.NewMemory(idempotency.MemoryConfig{}), 8
		}, 8, "at least 8 times"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.MaxCrashes = 4
				test.change(f, &config)
				transport := newCounting(f)
				if config.Idempotency != f.store {
					config.Idempotency = nil // a new one in each process, or none
				}
				f.publish(delivery.Message{ID: "before", Recipient: "a"}, delivery.Message{ID: "poison", Recipient: "b"})
				for i := range 20 {
					f.publish(delivery.Message{ID: fmt.Sprint(i), Recipient: fmt.Sprint(i)})
				}
				deaths := f.lives(transport, config, kills)
				assert.GreaterOrEqual(t, deaths, test.deaths)
				assert.LessOrEqual(t, deaths, test.deaths+1)
				letters := f.sink.all()
				require.Len(t, letters, 1)
				assert.Equal(t, "poison", letters[0].Envelope.ID)
				assert.Equal(t, delivery.ReasonCrashed, letters[0].Reason)
				assert.Contains(t, letters[0].Error, test.starts)
				assert.Zero(t, letters[0].Envelope.Crashes)
				assert.Zero(t, letters[0].Envelope.Attempt)
				assert.Equal(t, 21, f.processed("delivered"))
				f.empty()
			})
		})
	}
}

// Two that end the process are both found.
func TestTwoMessagesThatEndTheirProcess(t *testing.T) {
	for _, name := range []string{"store", "transport"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				if name == "transport" {
					config.Idempotency = nil
				}
				config.MaxCrashes = 3
				f.publish(delivery.Message{ID: "one", Recipient: "a"}, delivery.Message{ID: "fine", Recipient: "b"}, delivery.Message{ID: "two", Recipient: "c"})
				deaths := f.lives(newCounting(f), config, func(p *process, m delivery.Message) error {
					if m.ID == "fine" {
						return kills(p, m)
					}
					return kills(p, delivery.Message{ID: "poison"})
				})
				assert.Less(t, deaths, 12)
				letters := f.sink.all()
				require.Len(t, letters, 2)
				assert.ElementsMatch(t, []string{"one", "two"}, []string{letters[0].Envelope.ID, letters[1].Envelope.ID})
				assert.Equal(t, 1, f.processed("delivered"))
				f.empty()
			})
		})
	}
}

// Nothing is counted where the process does not end, or may not be.
func TestWhatDoesNotCountAsACrash(t *testing.T) {
	for name, change := range map[string]func(f *fixture, config *delivery.ConsumerConfig){
		"no limit": func(_ *fixture, config *delivery.ConsumerConfig) { config.MaxCrashes = -1 },
		"in order, without a store": func(_ *fixture, config *delivery.ConsumerConfig) {
			config.Ordered, config.Idempotency = true, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				change(f, &config)
				f.publish(delivery.Message{ID: "poison", Recipient: "r"})
				assert.Equal(t, 30, f.lives(newCounting(f), config, kills))
				assert.Zero(t, f.sink.count())
			})
		})
	}
}

// An orderly end while the handler runs, or before it may run, is none.
func TestOrderlyEndsAreNoCrashes(t *testing.T) {
	for name, change := range map[string]func(f *fixture, config *delivery.ConsumerConfig){
		"cancelled handler": func(_ *fixture, config *delivery.ConsumerConfig) { config.Ordered = false },
		"in order":          func(_ *fixture, config *delivery.ConsumerConfig) { config.Ordered = true },
		"open breaker": func(_ *fixture, config *delivery.ConsumerConfig) {
			config.Breaker = breaker.New(breaker.Config{})
			config.Breaker.ForceOpen(time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.MaxCrashes, config.DrainTimeout = 2, time.Second
				change(f, &config)
				transport := newCounting(f)
				f.publish(delivery.Message{ID: "slow", Recipient: "r"})
				for range 10 {
					_, stop := f.consumeFrom(transport, func(ctx context.Context, _ delivery.Message) error {
						<-ctx.Done()
						return ctx.Err()
					}, config)
					wait(10 * time.Second)
					require.NoError(t, stop())
				}
				if config.Breaker != nil {
					config.Breaker.ForceClosed(time.Hour)
				}
				_, stop := f.consumeFrom(transport, fine, config)
				wait(10 * time.Second)
				assert.Equal(t, 1, f.processed("delivered"))
				assert.Zero(t, f.sink.count())
				require.NoError(t, stop())
				f.empty()
			})
		})
	}
}

// While the store of the starts is down nothing is started, unless the consumer fails
// open.
func TestStartsThatCantBeKept(t *testing.T) {
	for name, failOpen := range map[string]bool{"closed": false, "open": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				config := f.config()
				config.FailOpen = failOpen
				f.publish(delivery.Message{ID: "m", Recipient: "r"})
				subscription, err := f.transport.Subscribe(t.Context(), delivery.SubscribeConfig{})
				require.NoError(t, err)
				transport := newCounting(f)
				transport.counts["m"] = 1
				require.NoError(t, subscription.Close())
				var well atomic.Bool
				claims := 0
				f.store.fail = func(step string) error {
					if step == "claim" && !well.Load() {
						claims++
						if claims%2 == 0 { // the first is the message's own
							return errDown
						}
					}
					return nil
				}
				_, stop := f.consumeFrom(transport, fine, config)
				wait(2 * time.Second)
				if failOpen {
					assert.Equal(t, 1, f.processed("delivered"))
				} else {
					assert.Empty(t, f.attempts("m"))
					well.Store(true)
					wait(time.Minute)
					assert.Equal(t, []int{1}, f.attempts("m"))
				}
				require.NoError(t, stop())
				f.empty()
			})
		})
	}
}

// What a RetryWorker hands over again after the end of the process that had it was
// delivered before.
func TestMessagesOfADeadProcessAreCounted(t *testing.T) {
	bubble(t, func(f *fixture) {
		var handed []delivery.Envelope
		f.outlet.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
			handed = append(handed, batch...)
			return nil
		})
		queued, retrying := stored("queued", delivery.StatusQueued, time.Now()), stored("retrying", delivery.StatusRetrying, time.Now())
		queued.ClaimedBy, retrying.RetryCount = "dead", 1
		f.save(queued, retrying)
		require.NoError(t, f.workOnce(f.workerConfig()))
		synctest.Wait()
		crashes := map[string]int{}
		for _, envelope := range handed {
			crashes[envelope.ID] = envelope.Crashes
		}
		assert.Equal(t, map[string]int{"queued": 1, "retrying": 0}, crashes)

		config := f.config()
		config.MaxCrashes = 2
		again := slices.IndexFunc(handed, func(e delivery.Envelope) bool { return e.ID == "queued" })
		require.NoError(t, errors.Join(f.transport.Send(t.Context(), handed[again:again+1])...))
		deaths := f.lives(f.transport, config, func(p *process, _ delivery.Message) error {
			p.die()
			return nil
		})
		assert.Equal(t, 2, deaths)
		assert.Equal(t, 1, f.sink.count())
	})
}
