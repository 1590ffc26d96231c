package delivery_test

import (
	"log/slog"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// What is set in vain is told of by its name, and nothing else is.
func TestFieldsWithoutEffectAreToldOf(t *testing.T) {
	bubble(t, func(f *fixture) {
		logger := slog.New(slog.NewTextHandler(f.log, nil))
		told := func(construct func() error) (fields []string) {
			f.log.reset()
			require.NoError(f.t, construct())
			for _, found := range regexp.MustCompile(`msg="config field has no effect" field=(\S+) want=`).FindAllStringSubmatch(f.log.read(), -1) {
				fields = append(fields, found[1])
			}
			return fields
		}
		publisher := func(config delivery.PublisherConfig) []string {
			config.Logger = logger
			return told(func() error { _, err := delivery.NewPublisher(f.outlet, config); return err })
		}
		consumer := func(config delivery.ConsumerConfig) []string {
			config.Logger, config.DeadLetters = logger, f.sink
			return told(func() error { _, err := delivery.NewConsumer(f.transport, fine, config); return err })
		}
		worker := func(config delivery.RetryWorkerConfig) []string {
			config.Logger, config.DeadLetters = logger, f.sink
			return told(func() error { _, err := delivery.NewRetryWorker(f.records, f.outlet, config); return err })
		}
		publishing := delivery.PublisherConfig{
			Queue: "mail", IdempotencyTTL: time.Hour, IdempotencyLease: time.Second, NoBatch: true, BatchSizeLimit: 7, PendingGrace: time.Minute, MaxOutgoing: 7,
		}
		assert.Equal(t, []string{
			"PublisherConfig.Queue", "PublisherConfig.IdempotencyTTL", "PublisherConfig.IdempotencyLease", "PublisherConfig.BatchSizeLimit",
			"PublisherConfig.PendingGrace", "PublisherConfig.MaxOutgoing",
		}, publisher(publishing))
		withStore := publishing
		withStore.Idempotency, withStore.Store, withStore.NoBatch = f.store, f.records, false
		assert.Empty(t, publisher(withStore))
		withStore.Store = delivery.RecordsOnly(f.records)
		assert.Equal(t, []string{"PublisherConfig.PendingGrace", "PublisherConfig.MaxOutgoing"}, publisher(withStore))
		assert.Empty(t, publisher(delivery.PublisherConfig{Queue: "memory"}), "the transport's own name")

		consuming := delivery.ConsumerConfig{
			IdempotencyKey: func(m delivery.Message) string { return m.ID }, IdempotencyLease: time.Second, IdempotencyWindow: time.Hour, FailOpen: true,
			MaxRetryAfter: time.Minute, MaxHold: time.Minute, OnHoldExceeded: delivery.HoldPassBy,
		}
		assert.Equal(t, []string{
			"ConsumerConfig.IdempotencyKey", "ConsumerConfig.IdempotencyLease", "ConsumerConfig.IdempotencyWindow", "ConsumerConfig.FailOpen",
			"ConsumerConfig.MaxRetryAfter", "ConsumerConfig.MaxHold", "ConsumerConfig.OnHoldExceeded",
		}, consumer(consuming))
		whole := consuming
		whole.Idempotency, whole.Ordered, whole.Retry = f.store, true, retry.Exponential{Base: time.Second, MaxRetries: 2}
		assert.Empty(t, consumer(whole))

		assert.Equal(t, []string{"RetryWorkerConfig.Retry"}, worker(delivery.RetryWorkerConfig{Retry: retry.None{}, IgnoreAckTimeouts: true}))
		assert.Empty(t, worker(delivery.RetryWorkerConfig{Retry: retry.None{}}))

		// Operators who switch a feature off need not hear of what belongs to it.
		whole.Ordered, whole.MaxHold, whole.OnHoldExceeded = false, 0, 0
		for _, features := range []delivery.Features{{}, delivery.DefaultSettings().Features} {
			settings := delivery.DefaultSettings()
			settings.Features = features
			assert.Empty(t, publisher(settings.Publisher(delivery.PublisherConfig{})))
			assert.Empty(t, publisher(settings.Publisher(publisherOf(f))))
			assert.Empty(t, consumer(settings.Consumer(delivery.ConsumerConfig{})))
			assert.Empty(t, consumer(settings.Consumer(whole)))
			assert.Empty(t, worker(settings.RetryWorker(delivery.RetryWorkerConfig{})))
		}
	})
}

func publisherOf(f *fixture) delivery.PublisherConfig {
	return delivery.PublisherConfig{Idempotency: f.store, Store: f.records, IdempotencyLease: time.Second, PendingGrace: time.Minute, MaxOutgoing: 7}
}

// A consumer asks one breaker, or those of the keys.
func TestBreakerAndKeyBreakersExcludeEachOther(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Breaker, config.KeyBreakers = breaker.New(breaker.Config{}), breaker.NewSet(breaker.SetConfig{})
		config.BreakerKey = func(m delivery.Message) string { return m.Type }
		_, err := delivery.NewConsumer(f.transport, fine, config)
		require.ErrorIs(t, err, delivery.ErrConfig)
		require.ErrorContains(t, err, "ConsumerConfig.Breaker and KeyBreakers exclude each other")
	})
}
