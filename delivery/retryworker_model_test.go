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
			w := &world{depot: newDepot(t), rt: rt, retry: retry.Exponential{Base: 10 * time.Second, MaxRetries: 2}, acknowledged: map[string]bool{}}
			for i := range rapid.IntRange(1, 5).Draw(rt, "messages") {
				id := fmt.Sprint("m-", i)
				w.ids = append(w.ids, id)
				record := stored(id, delivery.StatusPending, time.Now().Add(30*time.Second))
				record.ClaimedBy, record.RequireAck = "publisher", true
				w.save(record)
			}
			rt.Repeat(map[string]func(*rapid.T){
				"":         w.check,
				"work":     w.work,
				"consume":  w.consume,
				"ack":      w.acknowledge,
				"withdraw": w.withdraw,
				"wait":     w.wait,
			})
			w.settle()
		})
		if failure != nil {
			panic(failure)
		}
	})
}

// world is a depot with consumers and users, of whom nobody is reliable.
type world struct {
	*depot
	rt           *rapid.T
	retry        retry.Policy
	ids          []string
	taken        int // how many of the road's envelopes were consumed
	acknowledged map[string]bool
}

func (w *world) wait(rt *rapid.T) {
	<-time.After(rapid.SampledFrom([]time.Duration{time.Microsecond, time.Second, 11 * time.Second, 40 * time.Second, 2 * time.Minute}).Draw(rt, "for"))
}

// work is one worker's go at what is due, with at most one fault.
func (w *world) work(rt *rapid.T) {
	store := &shakyStore{Store: w.store.Store}
	dies := func(name string) func(string) error {
		return func(step string) error {
			if step == name {
				store.down.Store(true)
				return delivery.ErrStoreDown
			}
			return nil
		}
	}
	config := delivery.RetryWorkerConfig{Retry: w.retry, DeadLetters: w.graves, BatchSize: rapid.IntRange(1, 3).Draw(rt, "batch")}
	transport := &road{}
	defer func() {
		w.road.taken = append(w.road.taken, transport.taken...)
		w.graves.down.Store(false)
		w.graves.onPut = nil
	}()
	switch rapid.SampledFrom([]string{
		"none", "none", "transport down", "unknown but sent", "claim lost", "dies before mark", "dies after mark", "mark lost",
		"dead letters down", "acknowledged in between",
	}).Draw(rt, "fault") {
	case "transport down":
		transport.onSend(refusing(errDown))
	case "unknown but sent":
		transport.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
			w.road.taken = append(w.road.taken, batch...)
			return slices.Repeat([]error{delivery.ErrOutcomeUnknown}, len(batch))
		})
	case "claim lost":
		store.after = once("claim", delivery.ErrStoreDown)
	case "dies before mark":
		store.before = dies("update")
	case "dies after mark":
		store.after = dies("update")
	case "mark lost":
		store.after = once("update", delivery.ErrStoreDown)
	case "dead letters down":
		w.graves.down.Store(true)
	case "acknowledged in between":
		w.graves.onPut = func() { w.acknowledge(rt) }
	}
	_ = w.worker(store, transport, config).RunOnce(context.Background()) // what failed comes again
}

// consume is one run of a handler on a message that waits, and what a consumer
// notes of it; or the message comes twice, or the process dies before the ack.
func (w *world) consume(rt *rapid.T) {
	waiting := w.road.taken[w.taken:]
	if len(waiting) == 0 {
		return
	}
	envelope := waiting[0]
	w.taken++
	if rapid.IntRange(0, 4).Draw(rt, "copies") == 0 {
		w.road.taken = append(w.road.taken, envelope)
	}
	record := delivery.Record{Message: envelope.Message, Progress: delivery.Progress{
		RetryCount: envelope.Attempt, Generation: envelope.Generation, History: envelope.History,
	}}
	switch rapid.SampledFrom([]string{"ok", "ok", "fails", "permanent"}).Draw(rt, "outcome") {
	case "ok":
		w.sent(&envelope)
	case "fails":
		if record.CanRetry(w.retry) {
			w.note(failedAttempt(&record, delivery.StatusRetrying, time.Now().Add(w.retry.Delay(record.RetryCount))))
			return
		}
		w.bury(&record)
	case "permanent":
		w.bury(&record)
	}
}

// failedAttempt is the update by which an attempt that failed now is counted.
func failedAttempt(record *delivery.Record, status delivery.Status, due time.Time) delivery.Update {
	now := time.Now()
	return delivery.Update{
		ID: record.ID, Status: status, Generation: record.Generation, RetryCount: record.RetryCount + 1, At: now, DueAt: due,
		Failure: &delivery.Failure{At: now, Attempt: record.RetryCount + 1, Error: "busy"},
	}
}

func (w *world) sent(envelope *delivery.Envelope) {
	w.note(delivery.Update{
		ID: envelope.ID, Status: delivery.StatusSent, Generation: envelope.Generation, RetryCount: envelope.Attempt,
		At: time.Now(), DueAt: time.Now().Add(time.Minute),
	})
}

func (w *world) bury(record *delivery.Record) {
	letter := delivery.DeadLetter{ID: "letter of " + record.ID, Envelope: record.Envelope(), Reason: delivery.ReasonPermanent}
	update := failedAttempt(record, delivery.StatusFailed, time.Time{})
	update.DeadLetterID = letter.ID
	if progress, errs := w.note(update); errs == nil && progress[0].Status == delivery.StatusFailed {
		require.NoError(w.rt, w.graves.DeadLetter(context.Background(), letter))
	}
}

// note may be late: then somebody else knew better.
func (w *world) note(update delivery.Update) ([]delivery.Progress, []error) {
	progress, errs := w.store.Store.Update(context.Background(), update)
	if errs != nil {
		require.ErrorIs(w.rt, errs[0], delivery.ErrLate)
	}
	return progress, errs
}

func (w *world) acknowledge(rt *rapid.T) {
	id := rapid.SampledFrom(w.ids).Draw(rt, "id")
	acknowledge := w.acknowledger().Delivered
	if rapid.Bool().Draw(rt, "read") {
		acknowledge = w.acknowledger().Read
	}
	err := acknowledge(context.Background(), id)
	if err == nil {
		w.acknowledged[id] = true
		return
	}
	require.ErrorIs(rt, err, delivery.ErrNotAwaited)
}

func (w *world) withdraw(rt *rapid.T) {
	id := rapid.SampledFrom(w.ids).Draw(rt, "id")
	w.note(delivery.Update{ID: id, Status: delivery.StatusCancelled, At: time.Now()})
}

func (w *world) check(rt *rapid.T) {
	for _, id := range w.ids {
		record := w.get(id)
		require.LessOrEqual(rt, record.RetryCount, 3, id)
		require.Equal(rt, record.Status == delivery.StatusRetrying, !record.NextRetryAt.IsZero(), id)
		if w.acknowledged[id] {
			require.Contains(rt, []delivery.Status{delivery.StatusDelivered, delivery.StatusRead}, record.Status, id)
			require.Zero(rt, record.DueAt, id)
		}
	}
}

// settle has everything work again, until nothing is left to do.
func (w *world) settle() {
	worker := w.worker(w.store, w.road, delivery.RetryWorkerConfig{Retry: w.retry, DeadLetters: w.graves})
	for range 30 {
		require.NoError(w.rt, worker.RunOnce(context.Background()))
		for ; w.taken < len(w.road.taken); w.taken++ {
			w.sent(&w.road.taken[w.taken])
		}
		<-time.After(time.Minute)
	}
	w.check(w.rt)
	letters := map[string]bool{}
	for _, letter := range w.graves.all() {
		letters[letter.ID] = true
	}
	for _, id := range w.ids {
		switch record := w.get(id); record.Status {
		case delivery.StatusDelivered, delivery.StatusRead:
			require.True(w.rt, w.acknowledged[id])
			require.False(w.rt, record.DeadLetterID != "" && letters[record.DeadLetterID], "resolved")
		case delivery.StatusFailed:
			require.True(w.rt, letters[record.DeadLetterID], id)
		case delivery.StatusCancelled:
		default:
			require.Fail(w.rt, "left behind", "%s is %s", id, record.Status)
		}
	}
}
