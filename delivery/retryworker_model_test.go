package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// Whatever workers, consumers, users, crashes and outages do, and in whatever
// order, each message ends delivered or as a dead letter, and what the user has
// acknowledged stays acknowledged.
func TestEveryMessageEndsDeliveredOrAsADeadLetter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// The bubble has a goroutine of its own, and rapid wants to hear of a
		// failure, which is a panic, on this one.
		var failure any
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			m := &model{fixture: newFixture(t), rt: rt, retry: retry.Exponential{Base: 10 * time.Second, MaxRetries: 2}, acknowledged: map[string]bool{}}
			defer func() { _ = m.transport.Close() }()
			for i := range rapid.IntRange(1, 5).Draw(rt, "messages") {
				id := fmt.Sprint("m-", i)
				m.ids = append(m.ids, id)
				record := stored(id, delivery.StatusPending, time.Now().Add(30*time.Second))
				record.ClaimedBy, record.RequireAck = "publisher", true
				m.save(record)
			}
			rt.Repeat(map[string]func(*rapid.T){
				"":        m.check,
				"work":    m.work,
				"consume": m.consume,
				"ack":     m.acknowledge,
				"cancel":  m.cancel,
				"wait":    m.wait,
			})
			m.finish()
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// model is a fixture with workers, consumers and users, none of them reliable.
type model struct {
	*fixture
	rt           *rapid.T
	retry        retry.Policy
	ids          []string
	consumed     int // how many of the outlet's envelopes were
	acknowledged map[string]bool
}

func (m *model) wait(rt *rapid.T) {
	<-time.After(rapid.SampledFrom([]time.Duration{time.Microsecond, time.Second, 11 * time.Second, 40 * time.Second, 2 * time.Minute}).Draw(rt, "for"))
}

// work has one worker see to what is due, with at most one fault.
func (m *model) work(rt *rapid.T) {
	store := &faultyRecords{Store: m.records.Store}
	dies := func(operation string) error {
		if !isUpdate(operation) {
			return nil
		}
		store.down.Store(true)
		return delivery.ErrStoreDown
	}
	config := delivery.RetryWorkerConfig{Retry: m.retry, DeadLetters: m.sink, BatchSize: rapid.IntRange(1, 3).Draw(rt, "batch")}
	transport := &sendOnly{}
	defer func() {
		m.outlet.taken = append(m.outlet.taken, transport.taken...)
		m.sink.down.Store(false)
		m.sink.onPut = nil
	}()
	switch rapid.SampledFrom([]string{
		"none", "none", "transport down", "unknown but sent", "claim lost", "dies before an update", "dies after an update",
		"update's answer lost", "dead letters down", "acknowledged in between",
	}).Draw(rt, "fault") {
	case "transport down":
		transport.onSend(refusing(errDown))
	case "unknown but sent":
		transport.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
			m.outlet.taken = append(m.outlet.taken, batch...)
			return slices.Repeat([]error{delivery.ErrOutcomeUnknown}, len(batch))
		})
	case "claim lost":
		store.lost = once("claim", delivery.ErrStoreDown)
	case "dies before an update":
		store.fail = dies
	case "dies after an update":
		store.lost = dies
	case "update's answer lost":
		store.lost = once("update", delivery.ErrStoreDown)
	case "dead letters down":
		m.sink.down.Store(true)
	case "acknowledged in between":
		m.sink.onPut = func() { m.acknowledge(rt) }
	}
	_ = m.newWorker(store, transport, config).RunOnce(context.Background()) // what failed comes again
}

// consume is one run of a handler on a message that waits, and what a consumer
// records of it; or the message comes twice, or the process dies before the ack.
func (m *model) consume(rt *rapid.T) {
	waiting := m.outlet.taken[m.consumed:]
	if len(waiting) == 0 {
		return
	}
	envelope := waiting[0]
	m.consumed++
	if rapid.IntRange(0, 4).Draw(rt, "copies") == 0 {
		m.outlet.taken = append(m.outlet.taken, envelope)
	}
	record := delivery.Record{Message: envelope.Message, Progress: delivery.Progress{
		Queue:      "memory",
		RetryCount: envelope.Attempt, Generation: envelope.Generation, History: envelope.History,
	}}
	switch rapid.SampledFrom([]string{"ok", "ok", "fails", "permanent"}).Draw(rt, "outcome") {
	case "ok":
		m.handled(&envelope)
	case "fails":
		if record.CanRetry(m.retry) {
			m.record(failedAttempt(&record, delivery.StatusRetrying, time.Now().Add(m.retry.Delay(record.RetryCount))))
			return
		}
		m.giveUp(&record)
	case "permanent":
		m.giveUp(&record)
	}
}

func (m *model) handled(envelope *delivery.Envelope) {
	m.record(delivery.Update{
		ID: envelope.ID, Status: delivery.StatusSent, Generation: envelope.Generation, RetryCount: envelope.Attempt,
		At: time.Now(), DueAt: time.Now().Add(time.Minute),
	})
}

func (m *model) giveUp(record *delivery.Record) {
	letter := delivery.DeadLetter{ID: "letter of " + record.ID, Envelope: record.Envelope(), Reason: delivery.ReasonPermanent}
	update := failedAttempt(record, delivery.StatusFailed, time.Time{})
	update.DeadLetterID = letter.ID
	if progress, errs := m.record(update); errs == nil && progress[0].Status == delivery.StatusFailed {
		require.NoError(m.rt, m.sink.DeadLetter(context.Background(), letter))
	}
}

// record carries out an update, which may be late.
func (m *model) record(update delivery.Update) ([]delivery.Progress, []error) {
	progress, errs := m.records.Store.Update(context.Background(), update)
	if errs != nil {
		require.ErrorIs(m.rt, errs[0], delivery.ErrLate)
	}
	return progress, errs
}

func (m *model) acknowledge(rt *rapid.T) {
	id := rapid.SampledFrom(m.ids).Draw(rt, "id")
	acknowledge := m.acknowledger().Delivered
	if rapid.Bool().Draw(rt, "read") {
		acknowledge = m.acknowledger().Read
	}
	err := acknowledge(context.Background(), id)
	if err == nil {
		m.acknowledged[id] = true
		return
	}
	require.ErrorIs(rt, err, delivery.ErrNotAwaited)
}

func (m *model) cancel(rt *rapid.T) {
	id := rapid.SampledFrom(m.ids).Draw(rt, "id")
	m.record(delivery.Update{ID: id, Status: delivery.StatusCancelled, At: time.Now()})
}

func (m *model) check(rt *rapid.T) {
	for _, id := range m.ids {
		record := m.get(id)
		require.LessOrEqual(rt, record.RetryCount, 3, id)
		require.Equal(rt, record.Status == delivery.StatusRetrying, !record.NextRetryAt.IsZero(), id)
		if m.acknowledged[id] {
			require.Contains(rt, []delivery.Status{delivery.StatusDelivered, delivery.StatusRead}, record.Status, id)
			require.Zero(rt, record.DueAt, id)
		}
	}
}

// finish has everything work again, until nothing is left to do.
func (m *model) finish() {
	worker := m.newWorker(m.records, m.outlet, delivery.RetryWorkerConfig{Retry: m.retry, DeadLetters: m.sink})
	for range 30 {
		require.NoError(m.rt, worker.RunOnce(context.Background()))
		for ; m.consumed < len(m.outlet.taken); m.consumed++ {
			m.handled(&m.outlet.taken[m.consumed])
		}
		<-time.After(time.Minute)
	}
	m.check(m.rt)
	letters := map[string]bool{}
	for _, letter := range m.sink.all() {
		letters[letter.ID] = true
	}
	for _, id := range m.ids {
		switch record := m.get(id); record.Status {
		case delivery.StatusDelivered, delivery.StatusRead:
			require.True(m.rt, m.acknowledged[id])
			require.False(m.rt, record.DeadLetterID != "" && letters[record.DeadLetterID], "resolved")
		case delivery.StatusFailed:
			require.True(m.rt, letters[record.DeadLetterID], id)
		case delivery.StatusCancelled:
		default:
			require.Fail(m.rt, "left behind", "%s is %s", id, record.Status)
		}
	}
}
