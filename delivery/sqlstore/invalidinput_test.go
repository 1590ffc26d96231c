package sqlstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry"
)

// Invalid arguments are answered with an error that names them, and change
// nothing.
func TestBadInput(t *testing.T) {
	for _, at := range backends()[:2] {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			for _, input := range []struct {
				name string
				test func(*fixture)
			}{
				{"acknowledgments", badAcknowledgments},
				{"batches", badBatches},
				{"queries", badQueries},
				{"replays", badReplays},
				{"repeated IDs", repeatedIDs},
			} {
				t.Run(input.name, func(t *testing.T) { input.test(newFixture(t, at, at.queues(t))) })
			}
		})
	}
}

func messageWithAck(id string) delivery.Message {
	message := testMessage(id)
	message.RequireAck = true
	return message
}

// refuse is a handler that gives up messages of the type "refused".
func refuseHandler(m delivery.Message, _ int) error {
	if m.Type == "refused" {
		return retry.Permanent(errProvider)
	}
	return nil
}

func refusedMessage(id string) delivery.Message {
	message := messageWithAck(id)
	message.Type = "refused"
	return message
}

func scheduledMessage(id string) delivery.Message {
	message := testMessage(id)
	message.NotBefore = time.Now().Add(time.Hour)
	return message
}

func badAcknowledgments(f *fixture) {
	ctx, t := f.t.Context(), f.t
	f.setHandler(refuseHandler)
	p := f.run(quickConfig())
	p.publish(messageWithAck("a"), messageWithAck("b"), refusedMessage("refused"), scheduledMessage("cancelled"))
	require.NoError(t, p.publisher.Cancel(ctx, "cancelled"))
	f.await("a", delivery.StatusSent)
	f.await("b", delivery.StatusSent)
	f.await("refused", delivery.StatusFailed)

	for _, ids := range [][]string{{"b", ""}, append(slices.Repeat([]string{"nobody"}, 1000), "b")} {
		require.ErrorIs(t, p.acks.Read(ctx, ids...), delivery.ErrInvalid)
		assert.Equal(t, delivery.StatusSent, f.record("b").Status, "nothing is noted")
	}
	err := p.acks.Delivered(ctx, "nobody", "a", "refused", "cancelled", "\x00\xff")
	var each *delivery.ResultsError
	require.ErrorAs(t, err, &each)
	require.Len(t, each.Results, 5)
	require.ErrorIs(t, each.Results[0].Err, delivery.ErrNotFound)
	require.NoError(t, each.Results[1].Err)
	require.ErrorIs(t, each.Results[2].Err, delivery.ErrNotAwaited)
	require.ErrorIs(t, each.Results[3].Err, delivery.ErrNotAwaited)
	require.ErrorIs(t, each.Results[4].Err, delivery.ErrNotFound)
	f.missing("nobody")
	assert.Equal(t, delivery.StatusFailed, f.record("refused").Status)
	assert.Equal(t, delivery.StatusCancelled, f.record("cancelled").Status)
	assert.Len(t, f.letters(), 1)

	delivered := f.record("a")
	require.NoError(t, p.acks.Delivered(ctx, "a", "a"), "twice")
	assert.Equal(t, delivered, f.record("a"))
	require.NoError(t, p.acks.Read(ctx, "a"))
	read := f.record("a")
	assert.Equal(t, delivery.StatusRead, read.Status)
	require.NoError(t, p.acks.Read(ctx, "a"))
	require.NoError(t, p.acks.Delivered(ctx, "a"))
	assert.Equal(t, read, f.record("a"))
	require.NoError(t, p.acks.Read(ctx, "b"))
	b := f.record("b")
	assert.Equal(t, b.ReadAt, b.DeliveredAt)
}

func badBatches(f *fixture) {
	p := f.run(quickConfig())
	for _, size := range []int{0, 1001} {
		batch := make([]delivery.Message, size)
		for i := range batch {
			batch[i] = testMessage(fmt.Sprint(i))
		}
		_, err := p.publisher.SendBatch(f.t.Context(), batch)
		var fault *delivery.BatchError
		require.ErrorAs(f.t, err, &fault)
		assert.Equal(f.t, size, fault.Size)
		assert.Equal(f.t, 1000, fault.Limit)
		assert.Zero(f.t, f.total())
	}
	require.NoError(f.t, p.publisher.Publish(f.t.Context()))
	require.ErrorIs(f.t, p.publisher.Publish(f.t.Context(), testMessage("a"), delivery.Message{}), delivery.ErrInvalid)
	f.missing("a")
}

func badQueries(f *fixture) {
	ctx, t := f.t.Context(), f.t
	f.setHandler(refuseHandler)
	p := f.run(quickConfig())
	batch := []delivery.Message{refusedMessage("r1"), refusedMessage("r2")}
	for i := range 101 {
		batch = append(batch, scheduledMessage(fmt.Sprint(i)))
	}
	p.publish(batch...)
	f.await("r1", delivery.StatusFailed)
	f.await("r2", delivery.StatusFailed)

	first, err := f.store.List(ctx, delivery.RecordQuery{})
	require.NoError(t, err)
	require.Len(t, first.Records, delivery.DefaultRecordLimit)
	for _, limit := range []int{-1, delivery.MaxRecordLimit + 1, 1_000_000} {
		_, err := f.store.List(ctx, delivery.RecordQuery{Limit: limit})
		require.ErrorIs(t, err, delivery.ErrQuery)
		_, err = p.letters.List(ctx, dlq.Query{Limit: limit})
		require.ErrorIs(t, err, dlq.ErrQuery)
	}
	letters, err := p.letters.List(ctx, dlq.Query{Limit: 1})
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
		_, err := f.store.List(ctx, query)
		require.ErrorIs(t, err, delivery.ErrCursor, name)
	}
	_, err = p.letters.List(ctx, dlq.Query{Cursor: first.Next})
	require.ErrorIs(t, err, dlq.ErrCursor)
	page, err := f.store.List(ctx, delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Recipient: "\x00", Type: "\xff", IdempotencyKey: "'"}})
	require.NoError(t, err, "no message is like that")
	assert.Empty(t, page.Records)
}

func badReplays(f *fixture) {
	ctx, t := f.t.Context(), f.t
	f.setHandler(refuseHandler)
	p := f.run(quickConfig())
	p.publish(refusedMessage("r"))
	letter := f.await("r", delivery.StatusFailed).DeadLetterID
	for _, unknown := range []string{"nobody", "", "\x00\xff", "r"} {
		_, err := p.letters.Requeue(ctx, unknown)
		require.ErrorIs(t, err, dlq.ErrNotFound)
		_, err = p.letters.Delete(ctx, unknown)
		require.ErrorIs(t, err, dlq.ErrNotFound)
		_, err = p.letters.Job(ctx, unknown)
		require.ErrorIs(t, err, dlq.ErrJobNotFound)
		require.ErrorIs(t, p.letters.CancelReplay(ctx, unknown), dlq.ErrJobNotFound)
		require.NoError(t, p.letters.Resolve(ctx, unknown))
	}
	_, err := p.letters.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{Rate: -1})
	require.ErrorIs(t, err, dlq.ErrInvalid)
	_, err = p.letters.StartReplay(ctx, dlq.Filter{Since: time.Now(), Until: time.Now().Add(-time.Hour)}, dlq.ReplayConfig{})
	require.ErrorIs(t, err, dlq.ErrQuery)
	jobs, err := p.letters.Jobs(ctx)
	require.NoError(t, err)
	assert.Empty(t, jobs)

	_, err = p.letters.Requeue(ctx, "nobody", letter, letter)
	var results *delivery.ResultsError
	require.ErrorAs(t, err, &results)
	require.NoError(t, results.Results[1].Err)
	f.eventually(func() bool { r := f.record("r"); return r.Generation == 1 && r.Status == delivery.StatusFailed }, "it fails again")
	assert.Equal(t, 2, f.runsOf("r"), "replayed once")
	assert.Len(t, f.letters(), 1)
}

func repeatedIDs(f *fixture) {
	p := f.run(quickConfig())
	p.publish(testMessage("a"), testMessage("a"))
	first := f.await("a", delivery.StatusDelivered)
	another := testMessage("a")
	another.Subject = "another"
	require.ErrorIs(f.t, p.publisher.Publish(f.t.Context(), another), delivery.ErrConflict)
	p.publish(testMessage("a"))
	p.publish(testMessage("b"))
	f.await("b", delivery.StatusDelivered)
	assert.Equal(f.t, first, f.record("a"), "it stays as it is")
	assert.Equal(f.t, 1, f.runsOf("a"))
	assert.Equal(f.t, 2, f.total())
}
