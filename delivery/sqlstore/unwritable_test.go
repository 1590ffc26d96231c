package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

// newSQLiteFixture is a fixture with a SQLite file, and the file's DSN.
func newSQLiteFixture(t *testing.T) (f *fixture, dsn string) {
	t.Helper()
	at := backends()[0]
	dsn = sqlstore.SQLiteDSN(filepath.Join(t.TempDir(), "barid.db"))
	return newFixtureOn(t, connect(t, "sqlite", dsn), at.queues(t)), dsn
}

// A process whose database takes no writes says so at every call, runs no
// handler whose outcome it could not record, and changes nothing.
func TestReadOnlyDatabase(t *testing.T) {
	f, dsn := newSQLiteFixture(t)
	ctx := t.Context()
	f.setHandler(refuseHandler)
	p := f.run(quickConfig())
	p.publish(messageWithAck("sent"), refusedMessage("failed"), scheduledMessage("scheduled"))
	f.await("sent", delivery.StatusSent)
	letter := f.await("failed", delivery.StatusFailed).DeadLetterID
	p.stop()
	all := func() []delivery.Record {
		return []delivery.Record{f.record("sent"), f.record("failed"), f.record("scheduled")}
	}
	before := all()

	db := connect(t, "sqlite", dsn+"&_pragma=query_only(ON)")
	p = f.startOn(db, quickConfig())
	readOnly := func(err error, doing string) {
		t.Helper()
		require.ErrorIs(t, err, sqlstore.ErrReadOnly, doing)
		require.ErrorIs(t, err, delivery.ErrStoreDown, doing)
	}
	err := p.publisher.Publish(ctx, testMessage("new"))
	readOnly(err, "publish")
	require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
	_, err = p.publisher.SendBatch(ctx, []delivery.Message{testMessage("new"), testMessage("newer")})
	readOnly(err, "batch")
	readOnly(p.publisher.Cancel(ctx, "scheduled"), "cancel")
	readOnly(p.acks.Delivered(ctx, "sent"), "acknowledge")
	readOnly(p.letters.DeadLetter(ctx, delivery.DeadLetter{ID: "new"}), "dead letter")
	readOnly(p.letters.Resolve(ctx, letter), "resolve")
	_, err = p.letters.Requeue(ctx, letter)
	readOnly(err, "requeue")
	_, err = p.letters.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{})
	readOnly(err, "replay")

	waiting := delivery.Envelope{Message: testMessage("waiting")}
	require.Empty(t, p.transport.Send(ctx, []delivery.Envelope{waiting}))
	p.work()
	p.idle() // it is in hand
	p.stop()
	assert.Zero(t, f.runsOf("waiting"), "it can't be known whether it was handled before")
	assert.Equal(t, before, all())
	assert.Equal(t, 3, f.total())
	assert.Len(t, f.letters(), 1)

	f.run(quickConfig())
	f.await("waiting", delivery.StatusDelivered)
}

// Messages that were accepted before the disk was full are delivered, and no
// others are there.
func TestFullDatabase(t *testing.T) {
	f, dsn := newSQLiteFixture(t)
	ctx := t.Context()
	db := connect(t, "sqlite", dsn+"&_pragma=max_page_count(200)")
	p := f.startOn(db, quickConfig())
	large := func(id string) delivery.Message {
		message := testMessage(id)
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
	result, err := p.publisher.SendBatch(ctx, batch)
	full(err)
	assert.Equal(t, 100, result.Failed)
	assert.Zero(t, f.total(), "none of the batch")
	for err = nil; err == nil; {
		message := large(fmt.Sprint("single ", len(accepted)))
		if err = p.publisher.Publish(ctx, message); err == nil {
			accepted = append(accepted, message)
		}
	}
	full(err)
	require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
	require.NotEmpty(t, accepted)
	f.missing(fmt.Sprint("single ", len(accepted)))
	larger := large("dead") // than what may be left
	larger.Body = make([]byte, 256<<10)
	err = p.letters.DeadLetter(ctx, delivery.DeadLetter{ID: "new", Envelope: delivery.Envelope{Message: larger}})
	full(err)
	require.ErrorIs(t, err, dlq.ErrFull)
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	_, err = p.publisher.PublishIn(ctx, p.store.In(tx), larger)
	full(err)
	_ = tx.Rollback() // SQLite may have done so by itself
	p.work()
	p.idle()
	p.stop()

	f.run(quickConfig())
	for _, message := range accepted {
		delivered := f.await(message.ID, delivery.StatusDelivered)
		assert.Equal(t, message.Body, delivered.Body)
		assert.Equal(t, 1, f.runsOf(message.ID))
	}
	assert.Equal(t, len(accepted), f.total())
	assert.Empty(t, f.letters())
}
