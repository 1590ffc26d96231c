package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

func TestPublishFillsDefaults(t *testing.T) {
	bubble(t, func(f *fixture) {
		var got delivery.Message
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			got = m
			return nil
		}, f.config())
		message := delivery.Message{Recipient: "r", ExpiresAt: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}
		f.publish(message)
		wait(time.Second)
		assert.Empty(t, message.ID, "the caller's copy is as it was")
		assert.Zero(t, got.ExpiresAt, "never")
		assert.Len(t, got.ID, 36)
		assert.Equal(t, delivery.Normal, got.Priority)
		assert.WithinDuration(t, time.Now(), got.CreatedAt, 2*time.Second)
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Publish(f.t.Context()), "nothing to publish is published")
	})
}

func TestPublishRejectsBeforeAnythingIsSent(t *testing.T) {
	bubble(t, func(f *fixture) {
		large := to("large")
		large.Body = make([]byte, delivery.DefaultMaxBody+1)
		key := to("key")
		key.Headers = map[string]string{strings.Repeat("k", 256): ""}
		beyond := to("beyond")
		beyond.NotBefore = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
		require.ErrorIs(t, f.publisher.Publish(f.t.Context(), beyond), delivery.ErrInvalid, "never sent is not published")
		err := f.publisher.Publish(f.t.Context(), to("good"), delivery.Message{ID: "nobody"}, large, key)
		var failed *delivery.ResultsError
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Results, 4)
		assert.Equal(t, delivery.Result{ID: "good", Err: delivery.ErrNotSent}, failed.Results[0])
		require.ErrorIs(t, failed.Results[1].Err, delivery.ErrInvalid)
		require.ErrorIs(t, failed.Results[2].Err, delivery.ErrTooLarge)
		require.ErrorIs(t, failed.Results[3].Err, delivery.ErrTooLarge)
		require.ErrorIs(t, err, delivery.ErrTooLarge, "found through the whole")
		var tooLarge *delivery.TooLargeError
		require.ErrorAs(t, failed.Results[2].Err, &tooLarge)
		assert.Equal(t, delivery.TooLargeError{Field: "Body", Size: 16<<20 + 1, Limit: 16 << 20}, *tooLarge)
		f.empty()
		rejected, _ := f.collector.Value(metrics.MessagesPublishedTotal, metrics.LabelPriority, "normal", metrics.LabelOutcome, metrics.PublishRejected)
		assert.InDelta(t, 5, rejected, 0)
	})
}

func TestPublishTellsWhatBecameOfEachMessage(t *testing.T) {
	bubble(t, func(f *fixture) {
		mixed := &scripted{results: []error{nil, delivery.ErrUnroutable, delivery.ErrOutcomeUnknown}}
		publisher, err := delivery.NewPublisher(mixed, delivery.PublisherConfig{Metrics: f.collector})
		require.NoError(t, err)
		err = publisher.Publish(f.t.Context(), to("a"), to("b"), to("c"))
		var failed *delivery.ResultsError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, []delivery.Result{{ID: "a"}, {ID: "b", Err: delivery.ErrUnroutable}, {ID: "c", Err: delivery.ErrOutcomeUnknown}}, failed.Results)
		require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
		assert.ErrorContains(t, err, "2 of 3 failed")
	})
}

// scripted is a transport that answers each batch with the same results.
type scripted struct {
	delivery.Transport
	results []error
	batches [][]delivery.Envelope
}

func (s *scripted) Send(_ context.Context, batch []delivery.Envelope) []error {
	s.batches = append(s.batches, append([]delivery.Envelope(nil), batch...))
	if s.results == nil {
		return nil
	}
	return s.results[:len(batch)]
}

func TestPublishOncePerKey(t *testing.T) {
	bubble(t, func(f *fixture) {
		transport := &scripted{}
		publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Queue: "scripted", Idempotency: f.store})
		require.NoError(t, err)
		keyed := func(id, key string) delivery.Message {
			return delivery.Message{ID: id, IdempotencyKey: key, Recipient: "r"}
		}
		require.NoError(t, publisher.Publish(f.t.Context(), keyed("a", "k1")))

		err = publisher.Publish(f.t.Context(), keyed("b", "k1"), keyed("c", "k2"), keyed("d", "k2"))
		var failed *delivery.ResultsError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, &delivery.DuplicateError{Of: "a"}, failed.Results[0].Err)
		require.NoError(t, failed.Results[1].Err)
		assert.Equal(t, &delivery.DuplicateError{Of: "c"}, failed.Results[2].Err, "within one call too")
		require.Len(t, transport.batches, 2)
		assert.Len(t, transport.batches[1], 1)

		wait(25 * time.Hour)
		require.NoError(t, publisher.Publish(f.t.Context(), keyed("e", "k1")), "the key is forgotten")

		transport.results = []error{delivery.ErrRefused}
		require.ErrorIs(t, publisher.Publish(f.t.Context(), keyed("f", "k3")), delivery.ErrRefused)
		transport.results = []error{delivery.ErrOutcomeUnknown}
		require.ErrorIs(t, publisher.Publish(f.t.Context(), keyed("g", "k3")), delivery.ErrOutcomeUnknown, "what was refused frees its key")
		transport.results = nil
		require.ErrorIs(t, publisher.Publish(f.t.Context(), keyed("h", "k3")), delivery.ErrInProgress, "what is unknown keeps it")
		require.NoError(t, publisher.Publish(f.t.Context(), keyed("g", "k3")), "but not from the same message")

		f.store.down.Store(true)
		require.ErrorIs(t, publisher.Publish(f.t.Context(), keyed("i", "k4")), errDown)
		f.store.down.Store(false)
		f.store.fail = func(step string) error {
			if step == "complete" {
				return errDown
			}
			return nil
		}
		require.NoError(t, publisher.Publish(f.t.Context(), keyed("j", "k5")), "it is durable")
	})
}

func TestPublishScheduled(t *testing.T) {
	bubble(t, func(f *fixture) {
		delays := map[string]time.Duration{}
		f.transport.onSend = func(delay time.Duration, e delivery.Envelope) error {
			delays[e.ID] = delay
			return nil
		}
		var batch []delivery.Message
		for i := range 3 {
			message := to(fmt.Sprint(i))
			if i > 0 {
				message.NotBefore = time.Now().Add(time.Duration(i) * time.Hour)
			}
			batch = append(batch, message)
		}
		f.publish(batch...)
		assert.Equal(t, map[string]time.Duration{"0": 0, "1": time.Hour, "2": 2 * time.Hour}, delays)
		f.transport.onSend = func(delay time.Duration, _ delivery.Envelope) error {
			if delay == time.Hour {
				return delivery.ErrRefused
			}
			return nil
		}
		err := f.publisher.Publish(f.t.Context(), batch...)
		var failed *delivery.ResultsError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, []error{nil, delivery.ErrRefused, nil}, []error{failed.Results[0].Err, failed.Results[1].Err, failed.Results[2].Err})
	})
}

func TestForwardKeepsThePast(t *testing.T) {
	bubble(t, func(f *fixture) {
		transport := &scripted{}
		publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Queue: "scripted", Idempotency: f.store})
		require.NoError(t, err)
		envelope := delivery.Envelope{Message: to("a"), Generation: 2, History: []delivery.Failure{{Attempt: 1, Error: "x"}}}
		require.NoError(t, publisher.Forward(f.t.Context(), envelope))
		require.NoError(t, publisher.Forward(f.t.Context(), envelope), "sent as often as asked")
		assert.Equal(t, [][]delivery.Envelope{{envelope}, {envelope}}, transport.batches)
		never := delivery.Envelope{Message: to("never expires")}
		never.ExpiresAt = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
		require.NoError(t, publisher.Forward(f.t.Context(), never))
		assert.Zero(t, transport.batches[2][0].ExpiresAt)
		require.NoError(t, publisher.Forward(f.t.Context()))
		require.ErrorIs(t, publisher.Forward(f.t.Context(), delivery.Envelope{}), delivery.ErrInvalid)
	})
}

// Two queues may use the same keys, whatever they share.
func TestPublishersOfDifferentQueuesShareNoKeys(t *testing.T) {
	bubble(t, func(f *fixture) {
		message := delivery.Message{ID: "a", IdempotencyKey: "order-1", Recipient: "r"}
		for _, queue := range []string{"sms", "mail"} {
			publisher, err := delivery.NewPublisher(&scripted{}, delivery.PublisherConfig{Queue: queue, Idempotency: f.store})
			require.NoError(t, err)
			require.NoError(t, publisher.Publish(f.t.Context(), message), queue)
			message.ID = "b"
			require.ErrorIs(t, publisher.Publish(f.t.Context(), message), delivery.ErrDuplicate, queue)
		}
	})
}

func TestPublishersNeedAQueueForKeysAndRecords(t *testing.T) {
	for field, config := range map[string]delivery.PublisherConfig{
		"keys":         {Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{})},
		"records":      {Store: newRecords()},
		"records only": {Store: delivery.RecordsOnly(newRecords())},
	} {
		_, err := delivery.NewPublisher(&scripted{}, config)
		require.ErrorIs(t, err, delivery.ErrConfig, field)
		require.ErrorContains(t, err, "PublisherConfig.Queue is empty", field)
		config.Queue = strings.Repeat("q", delivery.MaxIDBytes+1)
		_, err = delivery.NewPublisher(&scripted{}, config)
		require.ErrorContains(t, err, "PublisherConfig.Queue has 256 bytes, want at most 255", field)
	}
}

func TestPublisherZeroValuesAndFaults(t *testing.T) {
	require.ErrorIs(t, (*delivery.Publisher)(nil).Publish(t.Context(), to("a")), delivery.ErrConfig)
	require.ErrorIs(t, new(delivery.Publisher).Publish(t.Context(), to("a")), delivery.ErrConfig)
	require.ErrorIs(t, new(delivery.Publisher).Forward(t.Context(), delivery.Envelope{}), delivery.ErrConfig)
	_, err := delivery.NewPublisher(nil, delivery.PublisherConfig{
		IdempotencyTTL: time.Second, IdempotencyLease: -1, MaxBodyBytes: -1,
		Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: -1}),
	})
	for _, says := range []string{"transport is nil", "IdempotencyLease is -1ns", "MaxBodyBytes is -1", "Idempotency: ", "MaxKeys"} {
		require.ErrorContains(t, err, says)
	}
	require.ErrorIs(t, err, delivery.ErrConfig)
	publisher, err := delivery.NewPublisher(&scripted{}, delivery.PublisherConfig{})
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, publisher.Publish(ended, to("a")), context.Canceled)
	require.ErrorIs(t, publisher.Forward(ended, delivery.Envelope{Message: to("a")}), context.Canceled)
}
