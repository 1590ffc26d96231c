package delivery_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

func TestSettingsRetry(t *testing.T) {
	assert.Equal(t, retry.Exponential{Base: 5 * time.Second, Max: 5 * time.Minute, MaxRetries: 5}, delivery.DefaultSettings().Retry())

	none := delivery.DefaultSettings()
	none.MaxRetries = 0
	assert.Equal(t, retry.None{}, none.Retry(), "not retry.Exponential, where 0 is the default")
	off := delivery.DefaultSettings()
	off.Features.Retry = false
	assert.Equal(t, retry.None{}, off.Retry())
	assert.Equal(t, retry.None{}, off.Consumer(delivery.ConsumerConfig{Retry: retry.Exponential{}}).Retry)
}

func TestSettingsBreaker(t *testing.T) {
	settings := delivery.DefaultSettings()
	settings.CircuitBreakerFailureThreshold, settings.CircuitBreakerSampleSize, settings.CircuitBreakerTimeout = 0.25, 20, 40*time.Second
	assert.Equal(t,
		breaker.Config{Name: "sms", Probes: 3, Threshold: 0.25, SampleSize: 20, OpenFor: 40 * time.Second},
		settings.Breaker(breaker.Config{Name: "sms", Probes: 3, Threshold: 0.75, SampleSize: 5}))
}

func TestSettingsConsumer(t *testing.T) {
	settings := delivery.DefaultSettings()
	settings.IdempotencyTTL = 48 * time.Hour
	settings.CircuitBreakerSampleSize = 2
	store, records := idempotency.NewMemory(idempotency.MemoryConfig{}), memory.NewStore(memory.StoreConfig{})
	byRecipient := func(m delivery.Message) string { return m.Recipient }

	t.Run("leaves the host's own", func(t *testing.T) {
		config := settings.Consumer(delivery.ConsumerConfig{
			Name: "orders", Concurrency: 3, HandlerTimeout: time.Hour, Idempotency: store,
			Retry: retry.Exponential{Base: time.Hour, MaxRetries: 99, Jitter: retry.JitterFull},
		})
		assert.Equal(t, "orders", config.Name)
		assert.Equal(t, 3, config.Concurrency)
		assert.Equal(t, time.Hour, config.HandlerTimeout)
		assert.Same(t, store, config.Idempotency)
		assert.Equal(t, 48*time.Hour, config.IdempotencyWindow)
		assert.Equal(t, retry.Exponential{Base: 5 * time.Second, Max: 5 * time.Minute, MaxRetries: 5, Jitter: retry.JitterFull}, config.Retry)
	})
	t.Run("awaits acknowledgments", func(t *testing.T) {
		config := settings.Consumer(delivery.ConsumerConfig{AckTimeout: time.Hour, Store: records})
		assert.Equal(t, 5*time.Minute, config.AckTimeout)
		assert.Same(t, records, config.Store)
	})
	t.Run("makes a breaker", func(t *testing.T) {
		config := settings.Consumer(delivery.ConsumerConfig{Name: "orders", HandlerTimeout: 10 * time.Minute})
		require.NotNil(t, config.Breaker)
		require.NoError(t, config.Breaker.Err())
		assert.Nil(t, config.KeyBreakers)
		assert.Equal(t, breaker.Closed, config.Breaker.State())
		for range 2 {
			permit, err := config.Breaker.Allow()
			require.NoError(t, err)
			permit.Done(breaker.Failure)
		}
		_, err := config.Breaker.Allow()
		var open *breaker.OpenError
		require.ErrorAs(t, err, &open)
		assert.Equal(t, "orders", open.Name)
	})
	t.Run("lets a probe take as long as a handler may", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			config := settings.Consumer(delivery.ConsumerConfig{HandlerTimeout: 10 * time.Minute})
			for range 2 {
				permit, err := config.Breaker.Allow()
				require.NoError(t, err)
				permit.Done(breaker.Failure)
			}
			<-time.After(31 * time.Second)
			probe, err := config.Breaker.Allow()
			require.NoError(t, err)
			<-time.After(10 * time.Minute)
			probe.Done(breaker.Success)
			assert.Equal(t, breaker.Closed, config.Breaker.State())
		})
	})
	t.Run("makes a breaker for each key", func(t *testing.T) {
		config := settings.Consumer(delivery.ConsumerConfig{BreakerKey: byRecipient})
		assert.Nil(t, config.Breaker)
		require.NotNil(t, config.KeyBreakers)
		assert.NoError(t, config.KeyBreakers.Err())
	})
	t.Run("takes the host's breakers", func(t *testing.T) {
		own := breaker.New(breaker.Config{})
		config := settings.Consumer(delivery.ConsumerConfig{Breaker: own})
		assert.Same(t, own, config.Breaker)
		set := breaker.NewSet(breaker.SetConfig{})
		config = settings.Consumer(delivery.ConsumerConfig{KeyBreakers: set, BreakerKey: byRecipient})
		assert.Same(t, set, config.KeyBreakers)
		assert.Nil(t, config.Breaker)
	})
	t.Run("takes out what is off", func(t *testing.T) {
		off := settings
		off.Features = delivery.Features{}
		config := off.Consumer(delivery.ConsumerConfig{
			Idempotency: store, Retry: retry.Exponential{}, Store: records,
			Breaker: breaker.New(breaker.Config{}), KeyBreakers: breaker.NewSet(breaker.SetConfig{}), BreakerKey: byRecipient,
		})
		assert.Nil(t, config.Idempotency)
		assert.Nil(t, config.Breaker)
		assert.Nil(t, config.KeyBreakers)
		assert.Nil(t, config.BreakerKey)
		assert.Negative(t, config.AckTimeout)
		assert.Equal(t, delivery.RecordsOnly(records), config.Store)
		assert.Equal(t, retry.None{}, config.Retry)
	})
}

// A breaker that settings make is known by the consumer's name, which it has from its
// transport here.
func TestSettingsBreakerHasAName(t *testing.T) {
	for name, base := range map[string]delivery.ConsumerConfig{
		"one":              {},
		"one for each key": {BreakerKey: func(m delivery.Message) string { return m.Type }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				settings := delivery.DefaultSettings()
				settings.CircuitBreakerSampleSize = 1
				base.Metrics, base.DeadLetters, base.Logger = f.collector, f.sink, slog.New(slog.NewTextHandler(f.log, nil))
				_, stop := f.consume(func(context.Context, delivery.Message) error { return errDown }, settings.Consumer(base))
				f.publish(to("a"))
				wait(time.Second)
				opened, known := f.collector.Value(metrics.BreakerTransitionsTotal, metrics.LabelName, "memory", metrics.LabelTo, metrics.StateOpen)
				assert.True(t, known)
				assert.Equal(t, 1, int(opened))
				assert.NotZero(t, f.log.count("breaker=memory"))
				require.NoError(t, stop())
			})
		})
	}
}

func TestSettingsPublisher(t *testing.T) {
	settings := delivery.DefaultSettings()
	settings.IdempotencyTTL = 48 * time.Hour
	store, records := idempotency.NewMemory(idempotency.MemoryConfig{}), memory.NewStore(memory.StoreConfig{})
	config := settings.Publisher(delivery.PublisherConfig{Idempotency: store, Store: records, MaxBodyBytes: 7})
	assert.Same(t, store, config.Idempotency)
	assert.Equal(t, 48*time.Hour, config.IdempotencyTTL)
	assert.Equal(t, 7, config.MaxBodyBytes)
	assert.Equal(t, 1000, config.BatchSizeLimit)
	assert.Same(t, records, config.Store)
	assert.False(t, config.NoBatch)
	assert.False(t, config.OnePriority)

	settings.Features = delivery.Features{}
	config = settings.Publisher(config)
	assert.True(t, config.NoBatch)
	assert.True(t, config.OnePriority)
	assert.Nil(t, config.Idempotency)
	assert.Equal(t, delivery.RecordsOnly(records), config.Store)
	assert.Nil(t, settings.Publisher(delivery.PublisherConfig{}).Store)
}

// What the host switches off itself stays off.
func TestSettingsSwitchNothingOn(t *testing.T) {
	records := delivery.RecordsOnly(memory.NewStore(memory.StoreConfig{}))
	own := delivery.PublisherConfig{NoBatch: true, OnePriority: true, Store: records}
	config := delivery.DefaultSettings().Publisher(own)
	assert.True(t, config.NoBatch)
	assert.True(t, config.OnePriority)
	assert.Equal(t, records, config.Store)
}

func TestSettingsRetryWorker(t *testing.T) {
	settings := delivery.DefaultSettings()
	config := settings.RetryWorker(delivery.RetryWorkerConfig{BatchSize: 7, Retry: retry.Exponential{Base: time.Hour, Jitter: retry.JitterEqual}})
	assert.Equal(t, 7, config.BatchSize)
	assert.Equal(t, retry.Exponential{Base: 5 * time.Second, Max: 5 * time.Minute, MaxRetries: 5, Jitter: retry.JitterEqual}, config.Retry)
	assert.False(t, config.IgnoreAckTimeouts)
	assert.Equal(t, 30*24*time.Hour, config.RecordRetention)
	assert.Zero(t, config.DeadLetterRetention)
	assert.True(t, settings.RetryWorker(delivery.RetryWorkerConfig{IgnoreAckTimeouts: true}).IgnoreAckTimeouts)

	settings.Features = delivery.Features{}
	settings.RecordRetention, settings.DeadLetterRetention = 0, 90*24*time.Hour
	config = settings.RetryWorker(config)
	assert.Equal(t, 7, config.BatchSize)
	assert.Equal(t, retry.None{}, config.Retry)
	assert.True(t, config.IgnoreAckTimeouts)
	assert.EqualValues(t, -1, config.RecordRetention)
	assert.Equal(t, 90*24*time.Hour, config.DeadLetterRetention)
}

// Whatever settings are valid, their configs are.
func TestSettingsMakeValidConfigs(t *testing.T) {
	transport := memory.New(memory.Config{})
	defer func() { assert.NoError(t, transport.Close()) }()
	handler := func(context.Context, delivery.Message) error { return nil }
	rapid.Check(t, func(t *rapid.T) {
		settings := anySettings(t)
		base := delivery.ConsumerConfig{HandlerTimeout: time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "HandlerTimeout"))}
		if rapid.Bool().Draw(t, "store") {
			base.Idempotency = idempotency.NewMemory(idempotency.MemoryConfig{})
		}
		if rapid.Bool().Draw(t, "key") {
			base.BreakerKey = func(m delivery.Message) string { return m.Type }
		}
		_, err := delivery.NewConsumer(transport, handler, settings.Consumer(base))
		require.NoError(t, err)
		_, err = delivery.NewPublisher(transport, settings.Publisher(delivery.PublisherConfig{Idempotency: base.Idempotency}))
		require.NoError(t, err)
	})
}

// With all features off messages still arrive, those of other priorities that
// were sent before among them.
func TestFeaturesOffLoseNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		on, off := delivery.DefaultSettings(), delivery.DefaultSettings()
		off.Features = delivery.Features{}
		before := []delivery.Message{
			{ID: "urgent", Recipient: "a", Priority: delivery.Urgent},
			{ID: "low", Recipient: "a", Priority: delivery.Low},
		}
		publisher, err := delivery.NewPublisher(f.transport, on.Publisher(delivery.PublisherConfig{}))
		require.NoError(t, err)
		_, err = publisher.SendBatch(t.Context(), before)
		require.NoError(t, err)

		publisher, err = delivery.NewPublisher(f.transport, off.Publisher(delivery.PublisherConfig{}))
		require.NoError(t, err)
		_, err = publisher.SendBatch(t.Context(), before)
		require.ErrorIs(t, err, delivery.ErrSwitchedOff)
		require.NoError(t, publisher.Publish(t.Context(), delivery.Message{ID: "high", Recipient: "a", Priority: delivery.High}))
		replayed := []delivery.Envelope{{Message: delivery.Message{ID: "replayed", Recipient: "a", Priority: delivery.High}, Generation: 1}}
		require.NoError(t, publisher.Forward(t.Context(), replayed...))
		assert.Equal(t, delivery.High, replayed[0].Priority, "the caller's")
		err = publisher.Publish(t.Context(), delivery.Message{Recipient: "a", Priority: 9})
		require.ErrorIs(t, err, delivery.ErrInvalid)

		var order []string
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			order = append(order, m.ID+" "+m.Priority.String())
			if m.ID == "high" {
				return errors.New("failed")
			}
			return nil
		}, off.Consumer(delivery.ConsumerConfig{Concurrency: 1, DeadLetters: f.sink}))
		synctest.Wait()
		require.NoError(t, stop())
		assert.Equal(t, []string{"urgent urgent", "high normal", "replayed normal", "low low"}, order)
		assert.Len(t, f.sink.letters, 1, "no retries")
	})
}

// Settings with faults, the zero value among them, are no silent switch that turns
// everything off.
func TestSettingsWithFaultsAreReported(t *testing.T) {
	_, err := delivery.NewConsumer(memory.New(memory.Config{}), fine, delivery.Settings{}.Consumer(delivery.ConsumerConfig{}))
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorContains(t, err, "MessageReliability.BatchSizeLimit is 0")
	_, err = delivery.NewPublisher(memory.New(memory.Config{}), delivery.Settings{}.Publisher(delivery.PublisherConfig{}))
	require.ErrorContains(t, err, "MessageReliability.MaxRetryDelay is 0s")
	_, err = delivery.NewRetryWorker(memory.NewStore(memory.StoreConfig{}), memory.New(memory.Config{}), delivery.Settings{}.RetryWorker(delivery.RetryWorkerConfig{}))
	require.ErrorContains(t, err, "MessageReliability.AcknowledgmentTimeout is 0s")
}
