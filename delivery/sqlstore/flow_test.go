package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// TestFlows takes messages from end to end on each backend. The flows on a
// backend share its queues.
func TestFlows(t *testing.T) {
	for _, at := range backends() {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			join := at.queues(t)
			for _, flow := range []struct {
				name string
				test func(*fixture)
			}{
				{"acknowledged", flowAcknowledged},
				{"retried", flowRetried},
				{"replayed", flowReplayed},
				{"replayed in bulk", flowReplayedInBulk},
				{"not acknowledged", flowNotAcknowledged},
				{"batch", flowBatch},
				{"outbox", flowOutbox},
				{"outbox unannounced", flowOutboxUnannounced},
				{"scheduled", flowScheduled},
				{"expired", flowExpired},
			} {
				t.Run(flow.name, func(t *testing.T) { flow.test(newFixture(t, at, join)) })
			}
		})
	}
}

func flowAcknowledged(f *fixture) {
	p := f.start(quickConfig())
	message := testMessage("a")
	message.RequireAck = true
	p.publish(message)
	queued := f.await("a", delivery.StatusQueued)
	assert.Equal(f.t, message.Body, queued.Body)
	assert.Equal(f.t, message.Headers, queued.Headers)
	assert.Zero(f.t, f.runsOf("a"), "nobody consumes yet")

	p.work()
	sent := f.await("a", delivery.StatusSent)
	assert.False(f.t, sent.SentAt.IsZero())
	assert.Equal(f.t, sent.SentAt.Add(time.Minute), sent.AckDeadline)
	require.NoError(f.t, p.acks.Delivered(f.t.Context(), "a"))
	delivered := f.record("a")
	assert.Equal(f.t, delivery.StatusDelivered, delivered.Status)
	assert.False(f.t, delivered.DeliveredAt.Before(sent.SentAt))
	require.NoError(f.t, p.acks.Read(f.t.Context(), "a"))
	read := f.record("a")
	assert.Equal(f.t, delivery.StatusRead, read.Status)
	assert.Equal(f.t, delivered.DeliveredAt, read.DeliveredAt)
	assert.True(f.t, read.DueAt.IsZero())
	assert.Equal(f.t, 1, f.runsOf("a"))
	p.idle()
}

func flowRetried(f *fixture) {
	f.setHandler(func(_ delivery.Message, run int) error {
		if run < 3 {
			return fmt.Errorf("run %d: %w", run, errProvider)
		}
		return nil
	})
	p := f.run(quickConfig())
	p.publish(testMessage("a"))
	record := f.await("a", delivery.StatusDelivered)
	assert.Equal(f.t, 2, record.RetryCount)
	require.Len(f.t, record.History, 2)
	assert.Equal(f.t, "run 1: provider is down", record.History[0].Error)
	assert.Equal(f.t, "run 2: provider is down", record.FailureReason())
	assert.Equal(f.t, 3, f.runsOf("a"))
	assert.Empty(f.t, f.letters())
	p.idle()
}

func flowReplayed(f *fixture) {
	f.setHandler(func(delivery.Message, int) error { return errProvider })
	p := f.run(quickConfig())
	message := testMessage("a")
	p.publish(message)
	failed := f.await("a", delivery.StatusFailed)
	assert.Equal(f.t, 3, f.runsOf("a"))
	letters := f.letters()
	require.Len(f.t, letters, 1)
	letter := letters[0]
	assert.Equal(f.t, failed.DeadLetterID, letter.ID)
	assert.Equal(f.t, delivery.ReasonExhausted, letter.Reason)
	assert.Equal(f.t, "provider is down", letter.Error)
	assert.Len(f.t, letter.Envelope.History, 3)
	assert.Equal(f.t, message.Body, letter.Envelope.Body)

	f.setHandler(nil)
	_, err := p.letters.Requeue(f.t.Context(), letter.ID)
	require.NoError(f.t, err)
	delivered := f.await("a", delivery.StatusDelivered)
	assert.Equal(f.t, 1, delivered.Generation)
	assert.Zero(f.t, delivered.RetryCount)
	assert.Len(f.t, delivered.History, 3, "of the first generation")
	assert.Equal(f.t, 4, f.runsOf("a"))
	assert.Empty(f.t, f.letters())
	p.idle()
}

func flowReplayedInBulk(f *fixture) {
	const count = 25
	f.setHandler(func(delivery.Message, int) error { return errProvider })
	p := f.run(quickConfig())
	ids, messages := make([]string, count), make([]delivery.Message, count)
	for i := range ids {
		ids[i] = fmt.Sprint("bulk ", i)
		messages[i] = testMessage(ids[i])
	}
	messages[0].Type = "other"
	p.publish(messages...)
	for _, id := range ids {
		f.await(id, delivery.StatusFailed)
	}
	p.stop()
	f.setHandler(nil)

	p = f.run(quickConfig())
	job, err := p.letters.StartReplay(f.t.Context(), dlq.Filter{Type: "order.created"}, dlq.ReplayConfig{Rate: 100})
	require.NoError(f.t, err)
	assert.Equal(f.t, count-1, job.Total)
	for _, id := range ids[1:] {
		assert.Equal(f.t, 1, f.await(id, delivery.StatusDelivered).Generation)
	}
	f.eventually(func() bool {
		job, err = p.letters.Job(context.Background(), job.ID)
		return assert.NoError(f.t, err) && job.Finished()
	}, "the job ends")
	assert.Equal(f.t, dlq.JobDone, job.Status)
	assert.Equal(f.t, count-1, job.Requeued)
	assert.Zero(f.t, job.Skipped+job.Failed)
	letters := f.letters()
	require.Len(f.t, letters, 1)
	assert.Equal(f.t, ids[0], letters[0].Envelope.ID)
	p.idle()
}

func flowNotAcknowledged(f *fixture) {
	config := quickConfig()
	config.consumer.AckTimeout = 30 * time.Millisecond
	p := f.run(config)
	message := testMessage("a")
	message.RequireAck = true
	p.publish(message)
	failed := f.await("a", delivery.StatusFailed)
	assert.Equal(f.t, 3, f.runsOf("a"), "each attempt is a new one for the idempotency store")
	assert.Equal(f.t, 3, failed.RetryCount)
	letters := f.letters()
	require.Len(f.t, letters, 1)
	assert.Equal(f.t, delivery.ReasonAckTimeout, letters[0].Reason)
	assert.Equal(f.t, failed.DeadLetterID, letters[0].ID)

	require.NoError(f.t, p.acks.Delivered(f.t.Context(), "a"), "late")
	assert.Equal(f.t, delivery.StatusDelivered, f.record("a").Status)
	assert.Empty(f.t, f.letters(), "resolved")
	p.idle()
}

func flowBatch(f *fixture) {
	p := f.run(quickConfig())
	batch := []delivery.Message{testMessage("a"), testMessage("b"), {ID: "invalid"}, testMessage("c")}
	_, err := p.publisher.SendBatch(f.t.Context(), batch)
	var fault *delivery.BatchError
	require.ErrorAs(f.t, err, &fault)
	require.Len(f.t, fault.Invalid, 1)
	assert.Equal(f.t, 2, fault.Invalid[0].Index)
	assert.Zero(f.t, f.total(), "nothing is saved")

	batch[2].Recipient = "+966500000002"
	result, err := p.publisher.SendBatch(f.t.Context(), batch)
	require.NoError(f.t, err)
	assert.Equal(f.t, 4, result.Succeeded)
	for _, message := range batch {
		f.await(message.ID, delivery.StatusDelivered)
		assert.Equal(f.t, 1, f.runsOf(message.ID), "nothing was sent before")
	}
	p.idle()
}

// flowOutbox publishes in the host's own transaction.
func flowOutbox(f *fixture) {
	ctx := f.t.Context()
	_, err := f.db.ExecContext(ctx, "CREATE TABLE "+f.prefix+"orders (id INTEGER)")
	require.NoError(f.t, err)
	p := f.run(quickConfig())
	order := func(end func(*sql.Tx) error, messages ...delivery.Message) (committed func()) {
		f.t.Helper()
		tx, err := f.db.BeginTx(ctx, nil)
		require.NoError(f.t, err)
		_, err = tx.ExecContext(ctx, "INSERT INTO "+f.prefix+"orders VALUES (1)")
		require.NoError(f.t, err)
		committed, err = p.publisher.PublishIn(ctx, p.store.In(tx), messages...)
		require.NoError(f.t, err)
		require.NoError(f.t, end(tx))
		return committed
	}
	order((*sql.Tx).Rollback, testMessage("rolled back"))
	order((*sql.Tx).Commit, testMessage("a"), testMessage("b"))()
	f.await("a", delivery.StatusDelivered)
	f.await("b", delivery.StatusDelivered)
	f.missing("rolled back")

	later := testMessage("later")
	later.NotBefore = time.Now().Add(50 * time.Millisecond)
	order((*sql.Tx).Commit, later)()
	f.await("later", delivery.StatusDelivered)

	tx, err := f.db.BeginTx(ctx, nil)
	require.NoError(f.t, err)
	_, err = p.publisher.PublishIn(ctx, p.store.In(tx), testMessage("c"), delivery.Message{ID: "invalid"})
	require.ErrorIs(f.t, err, delivery.ErrInvalid)
	require.NoError(f.t, tx.Commit())
	f.missing("c", "invalid")

	var orders int
	require.NoError(f.t, f.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+f.prefix+"orders").Scan(&orders))
	assert.Equal(f.t, 2, orders)
	for id, runs := range map[string]int{"a": 1, "b": 1, "later": 1, "rolled back": 0, "c": 0} {
		assert.Equal(f.t, runs, f.runsOf(id), id)
	}
	p.idle()
}

// flowOutboxUnannounced commits without calling what PublishIn has returned: a
// retry worker of the same or the next process finds the message.
func flowOutboxUnannounced(f *fixture) {
	config := quickConfig()
	config.worker.ScanInterval = 100 * time.Millisecond
	p := f.run(config)
	forgotten := func(id string) (saved time.Time) {
		tx, err := f.db.BeginTx(f.t.Context(), nil)
		require.NoError(f.t, err)
		saved = time.Now()
		_, err = p.publisher.PublishIn(f.t.Context(), p.store.In(tx), testMessage(id))
		require.NoError(f.t, err)
		require.NoError(f.t, tx.Commit())
		return saved
	}
	grace := config.publisher.PendingGrace.Truncate(time.Microsecond)
	saved := forgotten("the same process")
	delivered := f.await("the same process", delivery.StatusDelivered)
	assert.GreaterOrEqual(f.t, delivered.DeliveredAt.Sub(saved), grace-time.Microsecond)

	saved = forgotten("the next process")
	p.stop()
	p = f.run(config)
	delivered = f.await("the next process", delivery.StatusDelivered)
	assert.GreaterOrEqual(f.t, delivered.DeliveredAt.Sub(saved), grace-time.Microsecond)
	p.idle()
}

func flowScheduled(f *fixture) {
	p := f.run(quickConfig())
	begin := time.Now()
	at := func(id string, after time.Duration) delivery.Message {
		message := testMessage(id)
		message.NotBefore = begin.Add(after)
		return message
	}
	p.publish(at("soon", 100*time.Millisecond), at("cancelled", time.Hour), at("later", 150*time.Millisecond))
	assert.Equal(f.t, delivery.StatusPending, f.record("cancelled").Status)
	require.NoError(f.t, p.publisher.Cancel(f.t.Context(), "cancelled"))
	require.NoError(f.t, p.publisher.Cancel(f.t.Context(), "cancelled"), "twice")
	for id, after := range map[string]time.Duration{"soon": 100 * time.Millisecond, "later": 150 * time.Millisecond} {
		delivered := f.await(id, delivery.StatusDelivered)
		assert.GreaterOrEqual(f.t, delivered.DeliveredAt.Sub(begin), after-time.Microsecond)
	}
	assert.Equal(f.t, delivery.StatusCancelled, f.record("cancelled").Status)

	f.setHandler(func(delivery.Message, int) error { return errProvider })
	config := quickConfig()
	p.stop()
	config.consumer.Retry = hourly{}
	p = f.run(config)
	p.publish(testMessage("between two attempts"))
	f.await("between two attempts", delivery.StatusRetrying)
	require.NoError(f.t, p.publisher.Cancel(f.t.Context(), "between two attempts"))
	assert.Equal(f.t, delivery.StatusCancelled, f.record("between two attempts").Status)
	err := p.publisher.Cancel(f.t.Context(), "soon", "between two attempts", "nobody")
	var each *delivery.ResultsError
	require.ErrorAs(f.t, err, &each)
	require.ErrorIs(f.t, each.Results[0].Err, delivery.ErrLate)
	require.NoError(f.t, each.Results[1].Err)
	require.ErrorIs(f.t, each.Results[2].Err, delivery.ErrNotFound)
	for id, runs := range map[string]int{"soon": 1, "later": 1, "cancelled": 0, "between two attempts": 1} {
		assert.Equal(f.t, runs, f.runsOf(id), id)
	}
	assert.Empty(f.t, f.letters())
	p.idle()
}

// hourly retries after an hour.
type hourly struct{}

func (hourly) Delay(int) time.Duration { return time.Hour }
func (hourly) CanRetry(n int) bool     { return n < 1 }

// flowExpired publishes messages that expire while no process consumes.
func flowExpired(f *fixture) {
	p := f.start(quickConfig())
	scheduled, queued := testMessage("scheduled"), testMessage("queued")
	scheduled.NotBefore = time.Now().Add(50 * time.Millisecond)
	scheduled.ExpiresAt = scheduled.NotBefore.Add(50 * time.Millisecond)
	queued.ExpiresAt = scheduled.ExpiresAt
	p.publish(scheduled, queued)
	f.await("queued", delivery.StatusQueued)
	f.eventually(func() bool { return time.Now().After(scheduled.ExpiresAt) }, "they expire")
	p.work()
	for _, id := range []string{"scheduled", "queued"} {
		failed := f.await(id, delivery.StatusFailed)
		letters, err := p.letters.Get(f.t.Context(), failed.DeadLetterID)
		require.NoError(f.t, err)
		assert.Equal(f.t, delivery.ReasonExpired, letters[0].Reason)
		assert.Zero(f.t, f.runsOf(id))
	}

	_, err := p.letters.Requeue(f.t.Context(), f.letters()[0].ID, f.letters()[1].ID)
	require.NoError(f.t, err)
	for _, id := range []string{"scheduled", "queued"} {
		delivered := f.await(id, delivery.StatusDelivered)
		assert.Equal(f.t, 1, delivered.Generation)
		assert.Equal(f.t, 1, f.runsOf(id), "a replay is delivered although it expired")
	}
	p.idle()
}
