package delivery_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// transaction is a Saver that tells when it was committed.
type transaction struct {
	delivery.Saver
	committed int
}

func (s *transaction) Committed() { s.committed++ }

func TestPublishIn(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		committed, err := f.publisher.PublishIn(f.t.Context(), records, to("a"))
		require.NoError(t, err)
		wait(5 * time.Second)
		f.empty()
		committed()
		committed()
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		depths, err := f.transport.Depth(f.t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 1, depths[delivery.Normal].Messages)

		_, err = f.publisher.PublishIn(f.t.Context(), records, to("b"), delivery.Message{ID: "c"})
		require.ErrorIs(t, err, delivery.ErrInvalid)
		_, errs := records.Get(f.t.Context(), "b")
		require.ErrorIs(t, errs[0], delivery.ErrNotFound, "nothing half-done")

		bare, err := delivery.NewPublisher(f.transport, delivery.PublisherConfig{})
		require.NoError(t, err)
		_, err = bare.PublishIn(f.t.Context(), records, to("d"))
		require.ErrorIs(t, err, delivery.ErrUnsupported)
		require.ErrorIs(t, bare.Cancel(f.t.Context(), "d"), delivery.ErrUnsupported)
		require.NoError(t, bare.Close(f.t.Context()))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// The transaction was committed without what a savepoint had taken back: what is
// not saved is not sent, whatever the host says.
func TestOnlyWhatIsSavedIsSentAfterACommit(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		ctx := f.t.Context()
		rolledBack, err := f.publisher.PublishIn(ctx, noSaver{}, to("rolled back"))
		require.NoError(t, err)
		committed, err := f.publisher.PublishIn(ctx, records, to("cancelled"), to("worker's"))
		require.NoError(t, err)
		f.update(delivery.Update{ID: "cancelled", Status: delivery.StatusCancelled, At: time.Now().Add(time.Hour)})
		_, err = records.Claim(ctx, delivery.Claim{
			Queue: "memory", Status: delivery.StatusPending, Token: "worker", Now: time.Now().Add(time.Hour), Lease: time.Hour, Limit: 1,
		})
		require.NoError(t, err)
		rolledBack()
		committed()
		wait(5 * time.Second)
		f.empty()

		committed, err = f.publisher.PublishIn(ctx, records, to("store is down"))
		require.NoError(t, err)
		records.getDown.Store(true)
		committed()
		wait(5 * time.Second)
		f.empty()
		records.getDown.Store(false)
		committed, err = f.publisher.PublishIn(ctx, records, to("saved"))
		require.NoError(t, err)
		committed()
		wait(5 * time.Second)
		require.EqualValues(t, 1, f.waiting())
		require.Equal(t, delivery.StatusQueued, records.status(t, "saved"))
		require.NoError(t, f.publisher.Close(ctx))
	})
}

// noSaver is a transaction that is rolled back.
type noSaver struct{}

func (noSaver) Save(context.Context, ...delivery.Record) []error { return nil }

func TestPublishInTellsItsSaver(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		saver := &transaction{Saver: records}
		later := to("later")
		later.NotBefore = time.Now().Add(time.Hour)
		committed, err := f.publisher.PublishIn(f.t.Context(), saver, to("now"), later)
		require.NoError(t, err)
		assert.Zero(t, saver.committed)
		committed()
		committed()
		assert.Equal(t, 1, saver.committed)
		wait(time.Second)
		assert.EqualValues(t, 1, f.waiting())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A transaction that is committed after Close is a retry worker's.
func TestCommittedAfterClose(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		saver := &transaction{Saver: records}
		committed, err := f.publisher.PublishIn(f.t.Context(), saver, to("a"))
		require.NoError(t, err)
		require.NoError(t, f.publisher.Close(context.Background()))
		committed()
		assert.Equal(t, 1, saver.committed, "watchers are told all the same")
		wait(30 * time.Second)
		f.empty()
		assert.Equal(t, delivery.StatusPending, records.status(t, "a"))
	})
}

func TestPublishInThatFailsCanBeToldOfACommit(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for _, ctx := range []context.Context{ended, f.t.Context()} {
			committed, err := f.publisher.PublishIn(ctx, nil, to("a"))
			require.Error(t, err)
			committed()
		}
		records.fail = func(string) error { return errors.New("no") }
		committed, err := f.publisher.PublishIn(f.t.Context(), records, to("a"))
		require.Error(t, err)
		committed()
		wait(time.Second)
		f.empty()
		require.NoError(t, f.publisher.Close(context.Background()))
	})
}
