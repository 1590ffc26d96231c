package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// host is a fixture with everything that a message meets, wired as a host does it.
type host struct {
	*fixture
	letters *dlq.Manager
	acks    *delivery.Acknowledger
	config  delivery.ConsumerConfig
	retry   retry.Policy
}

func (f *fixture) host(config delivery.ConsumerConfig) *host {
	f.t.Helper()
	f.outboxed(delivery.PublisherConfig{})
	h := &host{fixture: f, retry: config.Retry}
	h.letters = dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), f.publisher, dlq.Config{})
	h.config = config
	h.config.Store, h.config.DeadLetters, h.config.Idempotency = h.records, h.letters, f.store
	acks, err := delivery.NewAcknowledger(h.records, delivery.AcknowledgerConfig{DeadLetters: h.letters})
	require.NoError(f.t, err)
	h.acks = acks
	return h
}

// begin starts a consumer and a worker.
func (h *host) begin(handler delivery.Handler) (end func()) {
	h.t.Helper()
	_, stop := h.consume(handler, h.config)
	endWorker := h.run(h.newWorker(h.records, h.transport, delivery.RetryWorkerConfig{Retry: h.retry, DeadLetters: h.letters}))
	return func() {
		require.NoError(h.t, stop())
		endWorker()
		require.NoError(h.t, h.publisher.Close(context.Background()))
	}
}

func (h *host) kept() []dlq.Entry {
	h.t.Helper()
	page, err := h.letters.List(context.Background(), dlq.Query{})
	require.NoError(h.t, err)
	return page.Entries
}

// failedAttempts lists the numbers of the attempts that failed.
func failedAttempts(history []delivery.Failure) []int {
	var numbers []int
	for _, failure := range history {
		numbers = append(numbers, failure.Attempt)
	}
	return numbers
}

var fewRetries = retry.Exponential{Base: 10 * time.Second, MaxRetries: 2, Jitter: retry.JitterNone}

func TestLifeOfAcknowledged(t *testing.T) {
	bubble(t, func(f *fixture) {
		h := f.host(delivery.ConsumerConfig{Retry: fewRetries, AckTimeout: time.Minute})
		end := h.begin(fine)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusSent, h.records.status(t, "a"))
		require.NoError(t, h.acks.Delivered(f.t.Context(), "a"))
		assert.Equal(t, delivery.StatusDelivered, h.records.status(t, "a"))
		require.NoError(t, h.acks.Read(f.t.Context(), "a"))
		wait(time.Hour)
		assert.Equal(t, delivery.StatusRead, h.records.status(t, "a"))
		assert.Equal(t, []int{1}, f.attempts("a"))
		end()
		f.empty()
	})
}

func TestLifeOfRetried(t *testing.T) {
	bubble(t, func(f *fixture) {
		h := f.host(delivery.ConsumerConfig{Retry: fewRetries})
		begin := time.Now()
		var ran []time.Duration
		end := h.begin(func(_ context.Context, m delivery.Message) error {
			ran = append(ran, time.Since(begin))
			return failUntil(len(f.attempts(m.ID)), 3, errDown)
		})
		f.publish(to("a"))
		wait(time.Hour)
		record := h.records.record(t, "a")
		assert.Equal(t, delivery.StatusDelivered, record.Status)
		assert.Equal(t, 2, record.RetryCount)
		assert.Equal(t, []int{1, 2, 3}, f.attempts("a"))
		require.Len(t, ran, 3)
		assert.InDelta(t, 10, ran[1].Seconds(), 0.5, "the worker wakes for it, and does not wait for its next look")
		assert.InDelta(t, 30, ran[2].Seconds(), 0.5)
		end()
		f.empty()
	})
}

func TestLifeOfExhausted(t *testing.T) {
	bubble(t, func(f *fixture) {
		h := f.host(delivery.ConsumerConfig{Retry: fewRetries})
		works := false
		end := h.begin(func(context.Context, delivery.Message) error {
			if works {
				return nil
			}
			return errDown
		})
		f.publish(to("a"))
		wait(time.Hour)
		assert.Equal(t, delivery.StatusFailed, h.records.status(t, "a"))
		letters := h.kept()
		require.Len(t, letters, 1)
		assert.Equal(t, delivery.ReasonExhausted, letters[0].Reason)
		assert.Equal(t, f.attempts("a"), failedAttempts(letters[0].Envelope.History), "numbered as the handler knows them")
		assert.Equal(t, f.attempts("a"), failedAttempts(f.get("a").History))

		works = true
		_, err := h.letters.Requeue(f.t.Context(), letters[0].ID)
		require.NoError(t, err)
		wait(time.Hour)
		record := h.records.record(t, "a")
		assert.Equal(t, delivery.StatusDelivered, record.Status)
		assert.Equal(t, 1, record.Generation)
		assert.Empty(t, h.kept())
		assert.Equal(t, []int{1, 2, 3, 1}, f.attempts("a"))
		end()
		f.empty()
	})
}

func TestLifeOfUnacknowledged(t *testing.T) {
	bubble(t, func(f *fixture) {
		h := f.host(delivery.ConsumerConfig{Retry: fewRetries, AckTimeout: time.Minute})
		end := h.begin(fine)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(time.Hour)
		assert.Equal(t, []int{1, 2, 3}, f.attempts("a"), "each attempt is a new one for the idempotency store")
		assert.Equal(t, delivery.StatusFailed, h.records.status(t, "a"))
		letters := h.kept()
		require.Len(t, letters, 1)
		assert.Equal(t, delivery.ReasonAckTimeout, letters[0].Reason)
		assert.Equal(t, f.attempts("a"), failedAttempts(letters[0].Envelope.History))
		require.NoError(t, h.acks.Delivered(f.t.Context(), "a"), "late")
		assert.Equal(t, delivery.StatusDelivered, h.records.status(t, "a"))
		assert.Empty(t, h.kept(), "resolved")
		require.NoError(t, h.acks.Delivered(f.t.Context(), "a"), "twice")
		end()
		f.empty()
	})
}

func TestLateAcknowledgmentCancelsTheRetry(t *testing.T) {
	bubble(t, func(f *fixture) {
		h := f.host(delivery.ConsumerConfig{Retry: fewRetries, AckTimeout: time.Minute})
		end := h.begin(fine)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(65 * time.Second)
		assert.Equal(t, delivery.StatusRetrying, h.records.status(t, "a"))
		require.NoError(t, h.acks.Delivered(f.t.Context(), "a"))
		wait(time.Hour)
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.Equal(t, delivery.StatusDelivered, h.records.status(t, "a"))
		end()
		f.empty()
	})
}

func TestLifeOfScheduled(t *testing.T) {
	bubble(t, func(f *fixture) {
		h := f.host(delivery.ConsumerConfig{})
		begin := time.Now()
		ran := map[string]time.Duration{}
		var mu sync.Mutex
		end := h.begin(func(_ context.Context, m delivery.Message) error {
			mu.Lock()
			defer mu.Unlock()
			ran[m.ID] = time.Since(begin)
			return nil
		})
		at := func(id string, after, expires time.Duration) delivery.Message {
			message := to(id)
			message.NotBefore, message.ExpiresAt = begin.Add(after), begin.Add(expires)
			return message
		}
		f.publish(at("soon", 7*time.Second, time.Hour), at("later", 90*time.Second, time.Hour), at("cancelled", time.Minute, time.Hour))
		require.NoError(t, f.publisher.Cancel(f.t.Context(), "cancelled"))
		wait(time.Hour)
		assert.InDelta(t, 7, ran["soon"].Seconds(), 0.5)
		assert.InDelta(t, 90, ran["later"].Seconds(), 0.5)
		assert.NotContains(t, ran, "cancelled")
		end()

		// It expires while nobody works.
		f.publisher, _ = delivery.NewPublisher(f.transport, delivery.PublisherConfig{Store: h.records})
		f.publish(at("expired", 2*time.Hour, 3*time.Hour))
		wait(4 * time.Hour)
		end = h.begin(fine)
		wait(time.Minute)
		assert.Equal(t, delivery.StatusFailed, h.records.status(t, "expired"))
		require.Len(t, h.kept(), 1)
		assert.Equal(t, delivery.ReasonExpired, h.kept()[0].Reason)
		end()
		f.empty()
	})
}

// The process dies with messages in its transport, being handled, and between
// two attempts. The next one has the store, and nothing else.
func TestLifeAfterACrash(t *testing.T) {
	bubble(t, func(f *fixture) {
		h := f.host(delivery.ConsumerConfig{Retry: fewRetries, Concurrency: 4})
		dying := make(chan struct{})
		_, stop := h.consume(func(_ context.Context, m delivery.Message) error {
			if m.Subject == "bad" && len(f.attempts(m.ID)) == 1 {
				return errDown
			}
			<-dying
			return errDown
		}, h.config)
		var all []delivery.Message
		for i := range 20 {
			message := to(fmt.Sprint(i))
			if i < 4 {
				message.Subject = "bad"
			}
			all = append(all, message)
		}
		f.publish(all...)
		wait(5 * time.Second)

		// From here on the first process changes nothing any more.
		records := h.records
		left := &faultyRecords{Store: records.Store}
		records.down.Store(true)
		dead := f.transport
		f.transport = &faultyTransport{Transport: memory.New(memory.Config{})}
		publisher, err := delivery.NewPublisher(f.transport, delivery.PublisherConfig{Store: left})
		require.NoError(t, err)
		old := f.publisher
		f.publisher = publisher
		h.records, h.config.Store = left, left
		h.config.Idempotency = idempotency.NewMemory(idempotency.MemoryConfig{})

		end := h.begin(fine)
		wait(10 * time.Minute)
		for i := range 20 {
			assert.Equal(t, delivery.StatusDelivered, left.status(t, fmt.Sprint(i)), "%d", i)
		}
		close(dying)
		require.NoError(t, stop())
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = old.Close(closing)
		cancel()
		require.NoError(t, dead.Close())
		end()
		f.empty()
	})
}

// Everything that a publisher, a consumer and the end user do at once ends with
// every message delivered, none of them twice.
func TestRecordsUnderLoad(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		_, stop := f.consume(fine, config)
		var group sync.WaitGroup
		for c := range 8 {
			group.Go(func() {
				for i := range 50 {
					if err := f.publisher.Publish(context.Background(), to(fmt.Sprintf("%d-%d", c, i))); err != nil && !errors.Is(err, context.Canceled) {
						f.t.Error(err)
					}
				}
			})
		}
		group.Wait()
		wait(time.Minute)
		stats, err := records.Stats(f.t.Context(), "")
		require.NoError(t, err)
		assert.Equal(t, 400, stats.Of(delivery.StatusDelivered))
		assert.Equal(t, 400, f.processed(metrics.OutcomeDelivered))
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
		f.empty()
	})
}
