package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
	"github.com/esh3artech/barid/retry"
)

// failures counts the dead letters that could not be put.
type failures struct {
	delivery.DeadLetterer
	count, stored atomic.Int32
}

func (f *failures) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
	err := f.DeadLetterer.DeadLetter(ctx, letters...)
	if err != nil {
		f.count.Add(1)
	} else {
		f.stored.Add(int32(len(letters)))
	}
	return err
}

// TestNoDeadLetterIsLost kills Redis twice while a consumer gives up all that it
// gets, and then sends everything again.
func TestNoDeadLetterIsLost(t *testing.T) {
	const messages = 300
	server := durable(t)
	client := connect(t, server.URL())
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	transport := memory.New(memory.Config{})
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	require.NoError(t, err)
	manager := dlq.NewManager(store, publisher, dlq.Config{})
	letters := &failures{DeadLetterer: manager}

	var mu sync.Mutex
	delivered := map[string]int{}
	consumer, err := delivery.NewConsumer(transport, func(ctx context.Context, message delivery.Message) error {
		attempt, _ := delivery.AttemptFrom(ctx)
		if attempt.Generation == 0 {
			return retry.Permanent(errors.New("rejected by the provider"))
		}
		mu.Lock()
		defer mu.Unlock()
		delivered[message.ID]++
		return nil
	}, delivery.ConsumerConfig{Name: "orders", DeadLetters: letters})
	require.NoError(t, err)
	running, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(running) }()

	for part := range 3 {
		before := letters.stored.Load()
		for i := range messages / 3 {
			require.NoError(t, publisher.Publish(t.Context(), delivery.Message{ID: fmt.Sprint(part, "-", i), Recipient: "r", Body: []byte("body")}))
		}
		if part == 2 {
			break
		}
		require.Eventually(t, func() bool { return letters.stored.Load() > before+5 }, patience, time.Millisecond)
		require.NoError(t, server.Kill())
		failed := letters.count.Load()
		require.NoError(t, publisher.Publish(t.Context(), delivery.Message{ID: fmt.Sprint("meanwhile ", part), Recipient: "r"}))
		require.Eventually(t, func() bool { return letters.count.Load() > failed }, patience, time.Millisecond)
		require.NoError(t, server.Start(t.Context()))
	}
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		count, err := store.Count(context.Background(), dlq.Filter{})
		assert.NoError(t, err)
		assert.Equal(t, messages+2, count)
	}, patience, 20*time.Millisecond)
	ids := audit(t, client, prefix)
	require.Len(t, ids, messages+2)
	entries, err := manager.Get(t.Context(), ids...)
	require.NoError(t, err)
	for i := range entries {
		require.Equal(t, delivery.ReasonPermanent, entries[i].Reason)
		require.Equal(t, "orders", entries[i].Source)
	}

	var group sync.WaitGroup
	for range 3 {
		group.Go(func() { _, _ = manager.Requeue(t.Context(), ids...) })
	}
	group.Wait()
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(delivered) == messages+2
	}, patience, 10*time.Millisecond)
	stop()
	require.NoError(t, <-ended)
	for id, times := range delivered {
		require.Equal(t, 1, times, "message %s", id)
	}
	requireKept(t, store)
	requireAudit(t, client, prefix)
	require.NoError(t, transport.Close())
}
