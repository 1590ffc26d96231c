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

// The life of a message, in each place. The flows of a place share its queues.
func TestFlows(t *testing.T) {
	for _, at := range places() {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			join := at.queues(t)
			for _, flow := range []struct {
				name string
				test func(*world)
			}{
				{"acknowledged", flowAcknowledged},
				{"retried", flowRetried},
				{"replayed", flowReplayed},
				{"replayed in bulk", flowReplayedInBulk},
				{"not acknowledged", flowNotAcknowledged},
				{"batch", flowBatch},
				{"outbox", flowOutbox},
				{"outbox without a word", flowOutboxWithoutAWord},
				{"scheduled", flowScheduled},
				{"expired", flowExpired},
			} {
				t.Run(flow.name, func(t *testing.T) { flow.test(newWorld(t, at, join)) })
			}
		})
	}
}

func flowAcknowledged(w *world) {
	h := w.start(brisk())
	message := flowing("a")
	message.RequireAck = true
	h.publish(message)
	queued := w.await("a", delivery.StatusQueued)
	assert.Equal(w.t, message.Body, queued.Body)
	assert.Equal(w.t, message.Headers, queued.Headers)
	assert.Zero(w.t, w.ran("a"), "nobody consumes yet")

	h.work()
	sent := w.await("a", delivery.StatusSent)
	assert.False(w.t, sent.SentAt.IsZero())
	assert.Equal(w.t, sent.SentAt.Add(time.Minute), sent.AckDeadline)
	require.NoError(w.t, h.acks.Delivered(w.t.Context(), "a"))
	delivered := w.record("a")
	assert.Equal(w.t, delivery.StatusDelivered, delivered.Status)
	assert.False(w.t, delivered.DeliveredAt.Before(sent.SentAt))
	require.NoError(w.t, h.acks.Read(w.t.Context(), "a"))
	read := w.record("a")
	assert.Equal(w.t, delivery.StatusRead, read.Status)
	assert.Equal(w.t, delivered.DeliveredAt, read.DeliveredAt)
	assert.True(w.t, read.DueAt.IsZero())
	assert.Equal(w.t, 1, w.ran("a"))
	h.idle()
}

func flowRetried(w *world) {
	w.handles(func(_ delivery.Message, run int) error {
		if run < 3 {
			return fmt.Errorf("run %d: %w", run, errProvider)
		}
		return nil
	})
	h := w.run(brisk())
	h.publish(flowing("a"))
	record := w.await("a", delivery.StatusDelivered)
	assert.Equal(w.t, 2, record.RetryCount)
	require.Len(w.t, record.History, 2)
	assert.Equal(w.t, "run 1: provider is down", record.History[0].Error)
	assert.Equal(w.t, "run 2: provider is down", record.FailureReason())
	assert.Equal(w.t, 3, w.ran("a"))
	assert.Empty(w.t, w.letters())
	h.idle()
}

func flowReplayed(w *world) {
	w.handles(func(delivery.Message, int) error { return errProvider })
	h := w.run(brisk())
	message := flowing("a")
	h.publish(message)
	failed := w.await("a", delivery.StatusFailed)
	assert.Equal(w.t, 3, w.ran("a"))
	letters := w.letters()
	require.Len(w.t, letters, 1)
	letter := letters[0]
	assert.Equal(w.t, failed.DeadLetterID, letter.ID)
	assert.Equal(w.t, delivery.ReasonExhausted, letter.Reason)
	assert.Equal(w.t, "provider is down", letter.Error)
	assert.Len(w.t, letter.Envelope.History, 3)
	assert.Equal(w.t, message.Body, letter.Envelope.Body)

	w.handles(nil)
	_, err := h.letters.Requeue(w.t.Context(), letter.ID)
	require.NoError(w.t, err)
	delivered := w.await("a", delivery.StatusDelivered)
	assert.Equal(w.t, 1, delivered.Generation)
	assert.Zero(w.t, delivered.RetryCount)
	assert.Len(w.t, delivered.History, 3, "of the first generation")
	assert.Equal(w.t, 4, w.ran("a"))
	assert.Empty(w.t, w.letters())
	h.idle()
}

func flowReplayedInBulk(w *world) {
	const count = 25
	w.handles(func(delivery.Message, int) error { return errProvider })
	h := w.run(brisk())
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprint("bulk ", i)
		message := flowing(ids[i])
		if i == 0 {
			message.Type = "other"
		}
		h.publish(message)
	}
	for _, id := range ids {
		w.await(id, delivery.StatusFailed)
	}
	h.stop()
	w.handles(nil)

	h = w.run(brisk())
	job, err := h.letters.StartReplay(w.t.Context(), dlq.Filter{Type: "order.created"}, dlq.ReplayConfig{Rate: 100})
	require.NoError(w.t, err)
	assert.Equal(w.t, count-1, job.Total)
	for _, id := range ids[1:] {
		assert.Equal(w.t, 1, w.await(id, delivery.StatusDelivered).Generation)
	}
	w.soon(func() bool {
		job, err = h.letters.Job(context.Background(), job.ID)
		return assert.NoError(w.t, err) && job.Finished()
	}, "the job ends")
	assert.Equal(w.t, dlq.JobDone, job.Status)
	assert.Equal(w.t, count-1, job.Requeued)
	assert.Zero(w.t, job.Skipped+job.Failed)
	letters := w.letters()
	require.Len(w.t, letters, 1)
	assert.Equal(w.t, ids[0], letters[0].Envelope.ID)
	h.idle()
}

func flowNotAcknowledged(w *world) {
	config := brisk()
	config.consumer.AckTimeout = 30 * time.Millisecond
	h := w.run(config)
	message := flowing("a")
	message.RequireAck = true
	h.publish(message)
	failed := w.await("a", delivery.StatusFailed)
	assert.Equal(w.t, 3, w.ran("a"), "each attempt is a new one for the idempotency store")
	assert.Equal(w.t, 3, failed.RetryCount)
	letters := w.letters()
	require.Len(w.t, letters, 1)
	assert.Equal(w.t, delivery.ReasonAckTimeout, letters[0].Reason)
	assert.Equal(w.t, failed.DeadLetterID, letters[0].ID)

	require.NoError(w.t, h.acks.Delivered(w.t.Context(), "a"), "late")
	assert.Equal(w.t, delivery.StatusDelivered, w.record("a").Status)
	assert.Empty(w.t, w.letters(), "resolved")
	h.idle()
}

func flowBatch(w *world) {
	h := w.run(brisk())
	batch := []delivery.Message{flowing("a"), flowing("b"), {ID: "invalid"}, flowing("c")}
	_, err := h.publisher.SendBatch(w.t.Context(), batch)
	var fault *delivery.BatchError
	require.ErrorAs(w.t, err, &fault)
	require.Len(w.t, fault.Invalid, 1)
	assert.Equal(w.t, 2, fault.Invalid[0].Index)
	assert.Zero(w.t, w.total(), "nothing is saved")

	batch[2].Recipient = "+966500000002"
	result, err := h.publisher.SendBatch(w.t.Context(), batch)
	require.NoError(w.t, err)
	assert.Equal(w.t, 4, result.Succeeded)
	for _, message := range batch {
		w.await(message.ID, delivery.StatusDelivered)
		assert.Equal(w.t, 1, w.ran(message.ID), "nothing was sent before")
	}
	h.idle()
}

// flowOutbox publishes in the host's own transaction.
func flowOutbox(w *world) {
	ctx := w.t.Context()
	_, err := w.db.ExecContext(ctx, "CREATE TABLE "+w.prefix+"orders (id INTEGER)")
	require.NoError(w.t, err)
	h := w.run(brisk())
	order := func(end func(*sql.Tx) error, messages ...delivery.Message) (committed func()) {
		w.t.Helper()
		tx, err := w.db.BeginTx(ctx, nil)
		require.NoError(w.t, err)
		_, err = tx.ExecContext(ctx, "INSERT INTO "+w.prefix+"orders VALUES (1)")
		require.NoError(w.t, err)
		committed, err = h.publisher.PublishIn(ctx, h.store.In(tx), messages...)
		require.NoError(w.t, err)
		require.NoError(w.t, end(tx))
		return committed
	}
	order((*sql.Tx).Rollback, flowing("rolled back"))
	order((*sql.Tx).Commit, flowing("a"), flowing("b"))()
	w.await("a", delivery.StatusDelivered)
	w.await("b", delivery.StatusDelivered)
	w.missing("rolled back")

	later := flowing("later")
	later.NotBefore = time.Now().Add(50 * time.Millisecond)
	order((*sql.Tx).Commit, later)()
	w.await("later", delivery.StatusDelivered)

	tx, err := w.db.BeginTx(ctx, nil)
	require.NoError(w.t, err)
	_, err = h.publisher.PublishIn(ctx, h.store.In(tx), flowing("c"), delivery.Message{ID: "invalid"})
	require.ErrorIs(w.t, err, delivery.ErrInvalid)
	require.NoError(w.t, tx.Commit())
	w.missing("c", "invalid")

	var orders int
	require.NoError(w.t, w.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+w.prefix+"orders").Scan(&orders))
	assert.Equal(w.t, 2, orders)
	for id, runs := range map[string]int{"a": 1, "b": 1, "later": 1, "rolled back": 0, "c": 0} {
		assert.Equal(w.t, runs, w.ran(id), id)
	}
	h.idle()
}

// Nobody says that the transaction was committed: a retry worker finds out, be
// it that of the same process or the next one's.
func flowOutboxWithoutAWord(w *world) {
	config := brisk()
	config.worker.ScanInterval = 100 * time.Millisecond
	h := w.run(config)
	forgotten := func(id string) (saved time.Time) {
		tx, err := w.db.BeginTx(w.t.Context(), nil)
		require.NoError(w.t, err)
		saved = time.Now()
		_, err = h.publisher.PublishIn(w.t.Context(), h.store.In(tx), flowing(id))
		require.NoError(w.t, err)
		require.NoError(w.t, tx.Commit())
		return saved
	}
	grace := config.publisher.PendingGrace.Truncate(time.Microsecond)
	saved := forgotten("the same process")
	delivered := w.await("the same process", delivery.StatusDelivered)
	assert.GreaterOrEqual(w.t, delivered.DeliveredAt.Sub(saved), grace-time.Microsecond)

	saved = forgotten("the next process")
	h.stop()
	h = w.run(config)
	delivered = w.await("the next process", delivery.StatusDelivered)
	assert.GreaterOrEqual(w.t, delivered.DeliveredAt.Sub(saved), grace-time.Microsecond)
	h.idle()
}

func flowScheduled(w *world) {
	h := w.run(brisk())
	begin := time.Now()
	at := func(id string, after time.Duration) delivery.Message {
		message := flowing(id)
		message.NotBefore = begin.Add(after)
		return message
	}
	h.publish(at("soon", 100*time.Millisecond), at("cancelled", time.Hour), at("later", 150*time.Millisecond))
	assert.Equal(w.t, delivery.StatusPending, w.record("cancelled").Status)
	require.NoError(w.t, h.publisher.Cancel(w.t.Context(), "cancelled"))
	require.NoError(w.t, h.publisher.Cancel(w.t.Context(), "cancelled"), "twice")
	for id, after := range map[string]time.Duration{"soon": 100 * time.Millisecond, "later": 150 * time.Millisecond} {
		delivered := w.await(id, delivery.StatusDelivered)
		assert.GreaterOrEqual(w.t, delivered.DeliveredAt.Sub(begin), after-time.Microsecond)
	}
	assert.Equal(w.t, delivery.StatusCancelled, w.record("cancelled").Status)

	w.handles(func(delivery.Message, int) error { return errProvider })
	config := brisk()
	h.stop()
	config.consumer.Retry = hourly{}
	h = w.run(config)
	h.publish(flowing("between two attempts"))
	w.await("between two attempts", delivery.StatusRetrying)
	require.NoError(w.t, h.publisher.Cancel(w.t.Context(), "between two attempts"))
	assert.Equal(w.t, delivery.StatusCancelled, w.record("between two attempts").Status)
	err := h.publisher.Cancel(w.t.Context(), "soon", "between two attempts", "nobody")
	var each *delivery.ResultsError
	require.ErrorAs(w.t, err, &each)
	require.ErrorIs(w.t, each.Results[0].Err, delivery.ErrLate)
	require.NoError(w.t, each.Results[1].Err)
	require.ErrorIs(w.t, each.Results[2].Err, delivery.ErrNotFound)
	for id, runs := range map[string]int{"soon": 1, "later": 1, "cancelled": 0, "between two attempts": 1} {
		assert.Equal(w.t, runs, w.ran(id), id)
	}
	assert.Empty(w.t, w.letters())
	h.idle()
}

// hourly retries after an hour.
type hourly struct{}

func (hourly) Delay(int) time.Duration { return time.Hour }
func (hourly) CanRetry(n int) bool     { return n < 1 }

// flowExpired publishes what expires while nobody works.
func flowExpired(w *world) {
	h := w.start(brisk())
	scheduled, queued := flowing("scheduled"), flowing("queued")
	scheduled.NotBefore = time.Now().Add(50 * time.Millisecond)
	scheduled.ExpiresAt = scheduled.NotBefore.Add(50 * time.Millisecond)
	queued.ExpiresAt = scheduled.ExpiresAt
	h.publish(scheduled, queued)
	w.await("queued", delivery.StatusQueued)
	w.soon(func() bool { return time.Now().After(scheduled.ExpiresAt) }, "they expire")
	h.work()
	for _, id := range []string{"scheduled", "queued"} {
		failed := w.await(id, delivery.StatusFailed)
		letters, err := h.letters.Get(w.t.Context(), failed.DeadLetterID)
		require.NoError(w.t, err)
		assert.Equal(w.t, delivery.ReasonExpired, letters[0].Reason)
		assert.Zero(w.t, w.ran(id))
	}

	_, err := h.letters.Requeue(w.t.Context(), w.letters()[0].ID, w.letters()[1].ID)
	require.NoError(w.t, err)
	for _, id := range []string{"scheduled", "queued"} {
		delivered := w.await(id, delivery.StatusDelivered)
		assert.Equal(w.t, 1, delivered.Generation)
		assert.Equal(w.t, 1, w.ran(id), "who replays it wants it delivered all the same")
	}
	h.idle()
}
