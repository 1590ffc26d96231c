package delivery_test

import (
	"context"
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
	"github.com/esh3artech/barid/retry"
)

// life is everything that a message meets, wired as a host does it.
type life struct {
	*fixture
	records *faultyRecords
	letters *dlq.Manager
	acks    *delivery.Acknowledger
	config  delivery.ConsumerConfig
	retry   retry.Policy
}

func (f *fixture) live(config delivery.ConsumerConfig) *life {
	f.t.Helper()
	l := &life{fixture: f, records: f.outboxed(delivery.PublisherConfig{}), retry: config.Retry}
	l.letters = dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), f.publisher, dlq.Config{})
	l.config = config
	l.config.Store, l.config.DeadLetters, l.config.Idempotency = l.records, l.letters, f.store
	acks, err := delivery.NewAcknowledger(l.records, delivery.AcknowledgerConfig{DeadLetters: l.letters})
	require.NoError(f.t, err)
	l.acks = acks
	return l
}

// begin starts a consumer and a worker.
func (l *life) begin(handler delivery.Handler) (end func()) {
	l.t.Helper()
	_, stop := l.consume(handler, l.config)
	worker, err := delivery.NewRetryWorker(l.records, l.transport, delivery.RetryWorkerConfig{Retry: l.retry, DeadLetters: l.letters})
	require.NoError(l.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	return func() {
		require.NoError(l.t, stop())
		cancel()
		require.NoError(l.t, <-done)
		require.NoError(l.t, l.publisher.Close(context.Background()))
	}
}

func (l *life) kept() []dlq.Entry {
	l.t.Helper()
	page, err := l.letters.List(context.Background(), dlq.Query{})
	require.NoError(l.t, err)
	return page.Entries
}

var fewRetries = retry.Exponential{Base: 10 * time.Second, MaxRetries: 2, Jitter: retry.JitterNone}

func TestLifeOfAcknowledged(t *testing.T) {
	bubble(t, func(f *fixture) {
		l := f.live(delivery.ConsumerConfig{Retry: fewRetries, AckTimeout: time.Minute})
		end := l.begin(fine)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusSent, l.records.status(t, "a"))
		require.NoError(t, l.acks.Delivered(f.t.Context(), "a"))
		assert.Equal(t, delivery.StatusDelivered, l.records.status(t, "a"))
		require.NoError(t, l.acks.Read(f.t.Context(), "a"))
		wait(time.Hour)
		assert.Equal(t, delivery.StatusRead, l.records.status(t, "a"))
		assert.Equal(t, []int{1}, f.attempts("a"))
		end()
		f.empty()
	})
}

func TestLifeOfRetried(t *testing.T) {
	bubble(t, func(f *fixture) {
		l := f.live(delivery.ConsumerConfig{Retry: fewRetries})
		begin := time.Now()
		var ran []time.Duration
		end := l.begin(func(_ context.Context, m delivery.Message) error {
			ran = append(ran, time.Since(begin))
			return failUntil(len(f.attempts(m.ID)), 3, errDown)
		})
		f.publish(to("a"))
		wait(time.Hour)
		record := l.records.record(t, "a")
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
		l := f.live(delivery.ConsumerConfig{Retry: fewRetries})
		works := false
		end := l.begin(func(context.Context, delivery.Message) error {
			if works {
				return nil
			}
			return errDown
		})
		f.publish(to("a"))
		wait(time.Hour)
		assert.Equal(t, delivery.StatusFailed, l.records.status(t, "a"))
		letters := l.kept()
		require.Len(t, letters, 1)
		assert.Equal(t, delivery.ReasonExhausted, letters[0].Reason)

		works = true
		_, err := l.letters.Requeue(f.t.Context(), letters[0].ID)
		require.NoError(t, err)
		wait(time.Hour)
		record := l.records.record(t, "a")
		assert.Equal(t, delivery.StatusDelivered, record.Status)
		assert.Equal(t, 1, record.Generation)
		assert.Empty(t, l.kept())
		assert.Equal(t, []int{1, 2, 3, 1}, f.attempts("a"))
		end()
		f.empty()
	})
}

func TestLifeOfUnacknowledged(t *testing.T) {
	bubble(t, func(f *fixture) {
		l := f.live(delivery.ConsumerConfig{Retry: fewRetries, AckTimeout: time.Minute})
		end := l.begin(fine)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(time.Hour)
		assert.Equal(t, []int{1, 2, 3}, f.attempts("a"), "each attempt is a new one for the idempotency store")
		assert.Equal(t, delivery.StatusFailed, l.records.status(t, "a"))
		letters := l.kept()
		require.Len(t, letters, 1)
		assert.Equal(t, delivery.ReasonAckTimeout, letters[0].Reason)
		require.NoError(t, l.acks.Delivered(f.t.Context(), "a"), "late")
		assert.Equal(t, delivery.StatusDelivered, l.records.status(t, "a"))
		assert.Empty(t, l.kept(), "resolved")
		require.NoError(t, l.acks.Delivered(f.t.Context(), "a"), "twice")
		end()
		f.empty()
	})
}

func TestLateAcknowledgmentCancelsTheRetry(t *testing.T) {
	bubble(t, func(f *fixture) {
		l := f.live(delivery.ConsumerConfig{Retry: fewRetries, AckTimeout: time.Minute})
		end := l.begin(fine)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(65 * time.Second)
		assert.Equal(t, delivery.StatusRetrying, l.records.status(t, "a"))
		require.NoError(t, l.acks.Delivered(f.t.Context(), "a"))
		wait(time.Hour)
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.Equal(t, delivery.StatusDelivered, l.records.status(t, "a"))
		end()
		f.empty()
	})
}

func TestLifeOfScheduled(t *testing.T) {
	bubble(t, func(f *fixture) {
		l := f.live(delivery.ConsumerConfig{})
		begin := time.Now()
		ran := map[string]time.Duration{}
		var mu sync.Mutex
		end := l.begin(func(_ context.Context, m delivery.Message) error {
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
		f.publisher, _ = delivery.NewPublisher(f.transport, delivery.PublisherConfig{Store: l.records})
		f.publish(at("expired", 2*time.Hour, 3*time.Hour))
		wait(4 * time.Hour)
		end = l.begin(fine)
		wait(time.Minute)
		assert.Equal(t, delivery.StatusFailed, l.records.status(t, "expired"))
		require.Len(t, l.kept(), 1)
		assert.Equal(t, delivery.ReasonExpired, l.kept()[0].Reason)
		end()
		f.empty()
	})
}

// The process dies with messages in its transport, being handled, and between
// two attempts. The next one has the store, and nothing else.
func TestLifeAfterACrash(t *testing.T) {
	bubble(t, func(f *fixture) {
		l := f.live(delivery.ConsumerConfig{Retry: fewRetries, Concurrency: 4})
		dying := make(chan struct{})
		_, stop := l.consume(func(_ context.Context, m delivery.Message) error {
			if m.Subject == "bad" && len(f.attempts(m.ID)) == 1 {
				return errDown
			}
			<-dying
			return errDown
		}, l.config)
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
		records := l.records
		left := &faultyRecords{Store: records.Store}
		records.down.Store(true)
		dead := f.transport
		f.transport = &faultyTransport{Transport: memory.New(memory.Config{})}
		publisher, err := delivery.NewPublisher(f.transport, delivery.PublisherConfig{Store: left})
		require.NoError(t, err)
		old := f.publisher
		f.publisher = publisher
		l.records, l.config.Store = left, left
		l.config.Idempotency = idempotency.NewMemory(idempotency.MemoryConfig{})

		end := l.begin(fine)
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
