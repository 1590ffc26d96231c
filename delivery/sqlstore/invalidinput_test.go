package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry"
)

// What callers get wrong is told by an error that says so, and changes nothing.
func TestBadInput(t *testing.T) {
	for _, at := range places()[:2] {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			for _, input := range []struct {
				name string
				test func(*world)
			}{
				{"acknowledgments", badAcknowledgments},
				{"batches", badBatches},
				{"queries", badQueries},
				{"replays", badReplays},
				{"repeated IDs", repeatedIDs},
			} {
				t.Run(input.name, func(t *testing.T) { input.test(newWorld(t, at, at.queues(t))) })
			}
		})
	}
}

func awaiting(id string) delivery.Message {
	message := flowing(id)
	message.RequireAck = true
	return message
}

// refuse is a handler that gives up messages of the type "refused".
func refuse(m delivery.Message, _ int) error {
	if m.Type == "refused" {
		return retry.Permanent(errProvider)
	}
	return nil
}

func refused(id string) delivery.Message {
	message := awaiting(id)
	message.Type = "refused"
	return message
}

func distant(id string) delivery.Message {
	message := flowing(id)
	message.NotBefore = time.Now().Add(time.Hour)
	return message
}

func badAcknowledgments(w *world) {
	ctx, t := w.t.Context(), w.t
	w.handles(refuse)
	h := w.run(brisk())
	h.publish(awaiting("a"), awaiting("b"), refused("refused"), distant("cancelled"))
	require.NoError(t, h.publisher.Cancel(ctx, "cancelled"))
	w.await("a", delivery.StatusSent)
	w.await("b", delivery.StatusSent)
	w.await("refused", delivery.StatusFailed)

	for _, ids := range [][]string{{"b", ""}, append(slices.Repeat([]string{"nobody"}, 1000), "b")} {
		require.ErrorIs(t, h.acks.Read(ctx, ids...), delivery.ErrInvalid)
		assert.Equal(t, delivery.StatusSent, w.record("b").Status, "nothing is noted")
	}
	err := h.acks.Delivered(ctx, "nobody", "a", "refused", "cancelled", "\x00\xff")
	var each *delivery.ResultsError
	require.ErrorAs(t, err, &each)
	require.Len(t, each.Results, 5)
	require.ErrorIs(t, each.Results[0].Err, delivery.ErrNotFound)
	require.NoError(t, each.Results[1].Err)
	require.ErrorIs(t, each.Results[2].Err, delivery.ErrNotAwaited)
	require.ErrorIs(t, each.Results[3].Err, delivery.ErrNotAwaited)
	require.ErrorIs(t, each.Results[4].Err, delivery.ErrNotFound)
	w.missing("nobody")
	assert.Equal(t, delivery.StatusFailed, w.record("refused").Status)
	assert.Equal(t, delivery.StatusCancelled, w.record("cancelled").Status)
	assert.Len(t, w.letters(), 1)

	delivered := w.record("a")
	require.NoError(t, h.acks.Delivered(ctx, "a", "a"), "twice")
	assert.Equal(t, delivered, w.record("a"))
	require.NoError(t, h.acks.Read(ctx, "a"))
	read := w.record("a")
	assert.Equal(t, delivery.StatusRead, read.Status)
	require.NoError(t, h.acks.Read(ctx, "a"))
	require.NoError(t, h.acks.Delivered(ctx, "a"))
	assert.Equal(t, read, w.record("a"))
	require.NoError(t, h.acks.Read(ctx, "b"))
	b := w.record("b")
	assert.Equal(t, b.ReadAt, b.DeliveredAt)
}

func badBatches(w *world) {
	h := w.run(brisk())
	for _, size := range []int{0, 1001} {
		batch := make([]delivery.Message, size)
		for i := range batch {
			batch[i] = flowing(fmt.Sprint(i))
		}
		_, err := h.publisher.SendBatch(w.t.Context(), batch)
		var fault *delivery.BatchError
		require.ErrorAs(w.t, err, &fault)
		assert.Equal(w.t, size, fault.Size)
		assert.Equal(w.t, 1000, fault.Limit)
		assert.Zero(w.t, w.total())
	}
	require.NoError(w.t, h.publisher.Publish(w.t.Context()))
	require.ErrorIs(w.t, h.publisher.Publish(w.t.Context(), flowing("a"), delivery.Message{}), delivery.ErrInvalid)
	w.missing("a")
}

func badQueries(w *world) {
	ctx, t := w.t.Context(), w.t
	w.handles(refuse)
	h := w.run(brisk())
	batch := []delivery.Message{refused("r1"), refused("r2")}
	for i := range 101 {
		batch = append(batch, distant(fmt.Sprint(i)))
	}
	h.publish(batch...)
	w.await("r1", delivery.StatusFailed)
	w.await("r2", delivery.StatusFailed)

	first, err := w.store.List(ctx, delivery.RecordQuery{})
	require.NoError(t, err)
	require.Len(t, first.Records, delivery.DefaultRecordLimit)
	for _, limit := range []int{-1, delivery.MaxRecordLimit + 1, 1_000_000} {
		_, err := w.store.List(ctx, delivery.RecordQuery{Limit: limit})
		require.ErrorIs(t, err, delivery.ErrQuery)
		_, err = h.letters.List(ctx, dlq.Query{Limit: limit})
		require.ErrorIs(t, err, dlq.ErrQuery)
	}
	letters, err := h.letters.List(ctx, dlq.Query{Limit: 1})
	require.NoError(t, err)
	require.NotEmpty(t, letters.Next)
	for name, query := range map[string]delivery.RecordQuery{
		"damaged":                {Cursor: first.Next[1:]},
		"no cursor":              {Cursor: "'; DROP TABLE barid_messages; --"},
		"of another order":       {Cursor: first.Next, Order: delivery.OldestFirst},
		"of another filter":      {Cursor: first.Next, RecordFilter: delivery.RecordFilter{Recipient: "r"}},
		"of dead letters":        {Cursor: letters.Next},
		"of no page whatsoever ": {Cursor: "\x00\xff"},
	} {
		_, err := w.store.List(ctx, query)
		require.ErrorIs(t, err, delivery.ErrCursor, name)
	}
	_, err = h.letters.List(ctx, dlq.Query{Cursor: first.Next})
	require.ErrorIs(t, err, dlq.ErrCursor)
	page, err := w.store.List(ctx, delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Recipient: "\x00", Type: "\xff", IdempotencyKey: "'"}})
	require.NoError(t, err, "no message is like that")
	assert.Empty(t, page.Records)
}

func badReplays(w *world) {
	ctx, t := w.t.Context(), w.t
	w.handles(refuse)
	h := w.run(brisk())
	h.publish(refused("r"))
	letter := w.await("r", delivery.StatusFailed).DeadLetterID
	for _, unknown := range []string{"nobody", "", "\x00\xff", "r"} {
		_, err := h.letters.Requeue(ctx, unknown)
		require.ErrorIs(t, err, dlq.ErrNotFound)
		_, err = h.letters.Delete(ctx, unknown)
		require.ErrorIs(t, err, dlq.ErrNotFound)
		_, err = h.letters.Job(ctx, unknown)
		require.ErrorIs(t, err, dlq.ErrJobNotFound)
		require.ErrorIs(t, h.letters.CancelReplay(ctx, unknown), dlq.ErrJobNotFound)
		require.NoError(t, h.letters.Resolve(ctx, unknown))
	}
	_, err := h.letters.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{Rate: -1})
	require.ErrorIs(t, err, dlq.ErrInvalid)
	_, err = h.letters.StartReplay(ctx, dlq.Filter{Since: time.Now(), Until: time.Now().Add(-time.Hour)}, dlq.ReplayConfig{})
	require.ErrorIs(t, err, dlq.ErrQuery)
	jobs, err := h.letters.Jobs(ctx)
	require.NoError(t, err)
	assert.Empty(t, jobs)

	_, err = h.letters.Requeue(ctx, "nobody", letter, letter)
	var results *dlq.ResultsError
	require.ErrorAs(t, err, &results)
	require.NoError(t, results.Results[1].Err)
	w.soon(func() bool { r := w.record("r"); return r.Generation == 1 && r.Status == delivery.StatusFailed }, "it fails again")
	assert.Equal(t, 2, w.ran("r"), "replayed once")
	assert.Len(t, w.letters(), 1)
}

func repeatedIDs(w *world) {
	h := w.run(brisk())
	h.publish(flowing("a"), flowing("a"))
	first := w.await("a", delivery.StatusDelivered)
	again := flowing("a")
	again.Subject = "another"
	h.publish(again)
	h.publish(flowing("b"))
	w.await("b", delivery.StatusDelivered)
	assert.Equal(w.t, first, w.record("a"), "it stays as it is")
	assert.Equal(w.t, 1, w.ran("a"))
	assert.Equal(w.t, 2, w.total())
}

// sqliteWorld is a world in a file, with the file's path.
func sqliteWorld(t *testing.T) (w *world, dsn string) {
	t.Helper()
	at := places()[0]
	dsn = sqlstore.SQLiteDSN(filepath.Join(t.TempDir(), "barid.db"))
	return newWorldOn(t, connect(t, "sqlite", dsn), at.queues(t)), dsn
}

// A process whose database takes no writes says so at every call, runs no handler
// that it could not take note of, and leaves everything as it was.
func TestReadOnlyDatabase(t *testing.T) {
	w, dsn := sqliteWorld(t)
	ctx := t.Context()
	w.handles(refuse)
	h := w.run(brisk())
	h.publish(awaiting("sent"), refused("failed"), distant("scheduled"))
	w.await("sent", delivery.StatusSent)
	letter := w.await("failed", delivery.StatusFailed).DeadLetterID
	h.stop()
	all := func() []delivery.Record {
		return []delivery.Record{w.record("sent"), w.record("failed"), w.record("scheduled")}
	}
	before := all()

	db := connect(t, "sqlite", dsn+"&_pragma=query_only(ON)")
	h = w.startOn(db, brisk())
	readOnly := func(err error, doing string) {
		t.Helper()
		require.ErrorIs(t, err, sqlstore.ErrReadOnly, doing)
		require.ErrorIs(t, err, delivery.ErrStoreDown, doing)
	}
	err := h.publisher.Publish(ctx, flowing("new"))
	readOnly(err, "publish")
	require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
	_, err = h.publisher.SendBatch(ctx, []delivery.Message{flowing("new"), flowing("newer")})
	readOnly(err, "batch")
	readOnly(h.publisher.Cancel(ctx, "scheduled"), "cancel")
	readOnly(h.acks.Delivered(ctx, "sent"), "acknowledge")
	readOnly(h.letters.DeadLetter(ctx, delivery.DeadLetter{ID: "new"}), "dead letter")
	readOnly(h.letters.Resolve(ctx, letter), "resolve")
	_, err = h.letters.Requeue(ctx, letter)
	readOnly(err, "requeue")
	_, err = h.letters.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{})
	readOnly(err, "replay")

	waiting := delivery.Envelope{Message: flowing("waiting")}
	require.Empty(t, h.transport.Send(ctx, []delivery.Envelope{waiting}))
	h.work()
	h.idle() // it is in hand
	h.stop()
	assert.Zero(t, w.ran("waiting"), "it can't be known whether it was handled before")
	assert.Equal(t, before, all())
	assert.Equal(t, 3, w.total())
	assert.Len(t, w.letters(), 1)

	w.run(brisk())
	w.await("waiting", delivery.StatusDelivered)
}

// What was accepted before the disk was full is delivered, and what was not
// accepted is not there.
func TestFullDatabase(t *testing.T) {
	w, dsn := sqliteWorld(t)
	ctx := t.Context()
	db := connect(t, "sqlite", dsn+"&_pragma=max_page_count(200)")
	h := w.startOn(db, brisk())
	large := func(id string) delivery.Message {
		message := flowing(id)
		message.Body = make([]byte, 16<<10)
		return message
	}
	var accepted, batch []delivery.Message
	for i := range 100 {
		batch = append(batch, large(fmt.Sprint("batch ", i)))
	}
	full := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, sqlstore.ErrDiskFull)
		require.ErrorIs(t, err, delivery.ErrStoreDown)
	}
	result, err := h.publisher.SendBatch(ctx, batch)
	full(err)
	assert.Equal(t, 100, result.Failed)
	assert.Zero(t, w.total(), "none of the batch")
	for err = nil; err == nil; {
		message := large(fmt.Sprint("single ", len(accepted)))
		if err = h.publisher.Publish(ctx, message); err == nil {
			accepted = append(accepted, message)
		}
	}
	full(err)
	require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
	require.NotEmpty(t, accepted)
	w.missing(fmt.Sprint("single ", len(accepted)))
	err = h.letters.DeadLetter(ctx, delivery.DeadLetter{ID: "new", Envelope: delivery.Envelope{Message: large("dead")}})
	full(err)
	require.ErrorIs(t, err, dlq.ErrFull)
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = h.publisher.PublishIn(ctx, h.store.In(tx), large("in a transaction"))
	full(err)
	_ = tx.Rollback() // SQLite may have done so by itself
	h.work()
	h.idle()
	h.stop()

	w.run(brisk())
	for _, message := range accepted {
		delivered := w.await(message.ID, delivery.StatusDelivered)
		assert.Equal(t, message.Body, delivered.Body)
		assert.Equal(t, 1, w.ran(message.ID))
	}
	assert.Equal(t, len(accepted), w.total())
	assert.Empty(t, w.letters())
}
