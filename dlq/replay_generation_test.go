package dlq_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// failing is a queue whose consumers give everything up at once, with a clock that
// is behind.
type failing struct {
	sender

	manager *dlq.Manager
	behind  time.Duration
}

func newFailing(store dlq.Store, config dlq.Config, behind time.Duration) *failing {
	f := &failing{behind: behind}
	f.forward = func(ctx context.Context, envelopes []delivery.Envelope) error {
		<-time.After(time.Millisecond)
		return f.giveUp(ctx, time.Now().Add(-f.behind), envelopes...)
	}
	f.manager = dlq.NewManager(store, f, config)
	return f
}

func (f *failing) giveUp(ctx context.Context, at time.Time, envelopes ...delivery.Envelope) error {
	all := make([]delivery.DeadLetter, len(envelopes))
	for i := range envelopes {
		all[i] = delivery.DeadLetter{
			ID: fmt.Sprint(envelopes[i].ID, "/", envelopes[i].Generation), Envelope: envelopes[i], Reason: delivery.ReasonPermanent, At: at,
		}
	}
	return f.manager.DeadLetter(ctx, all...)
}

// mixed gives up n messages, an hour ago, of which the second third has been
// requeued once and the last one twice.
func (f *failing) mixed(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		message := delivery.Message{ID: fmt.Sprintf("%04d", i*7%n), Recipient: "r"}
		envelope := delivery.Envelope{Message: message, Generation: i * 3 / n}
		require.NoError(t, f.giveUp(t.Context(), time.Now().Add(-time.Hour+time.Duration(i*7%n)*time.Second), envelope))
	}
}

func (f *failing) requireEachSentOnce(t *testing.T, n int) {
	t.Helper()
	times := make(map[string]int)
	for _, envelope := range f.sent() {
		times[envelope.ID]++
		require.Equal(t, 1, times[envelope.ID], "of %s", envelope.ID)
	}
	assert.Len(t, times, n)
	assert.Len(t, kept(t, f.manager), n, "all of them failed again")
}

// Consumers whose clocks are behind give up what the job sent before it began, as
// it seems. It must not be sent again by the job, whatever generations there are.
func TestReplaySendsNothingTwiceWhateverTheClocksSay(t *testing.T) {
	const count = 120
	for _, behind := range []time.Duration{-time.Hour, 0, 5 * time.Second, 30 * time.Minute, 24 * time.Hour} {
		for _, rate := range []float64{0, 5, 200} {
			t.Run(fmt.Sprint(behind, rate), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFailing(dlq.NewMemory(dlq.MemoryConfig{}), dlq.Config{BatchSize: 7}, behind)
					f.mixed(t, count)
					defer running(t, f.manager)()
					job := start(t, f.manager, dlq.Filter{}, rate)
					<-time.After(5 * time.Minute)
					job = progress(t, f.manager, job.ID)
					assert.Equal(t, []any{dlq.JobDone, count, count, 0, 0}, []any{job.Status, job.Total, job.Requeued, job.Skipped, job.Failed})
					f.requireEachSentOnce(t, count)
				})
			})
		}
	}
}

// Whoever takes the job over knows which generations it has passed.
func TestReplayThatIsTakenOverSendsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 90
		f := newFailing(dlq.NewMemory(dlq.MemoryConfig{}), dlq.Config{BatchSize: 4}, time.Hour)
		f.mixed(t, count)
		job := start(t, f.manager, dlq.Filter{}, 20)
		for ; !job.Finished(); job = progress(t, f.manager, job.ID) {
			stop := running(t, f.manager)
			<-time.After(700 * time.Millisecond)
			stop()
		}
		f.requireEachSentOnce(t, count)
	})
}

// A poison message has only entries of other generations behind it: those are not
// sent to find out about it, and it does not hold the job up.
func TestReplayOfAPoisonMessageBeforeOtherGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailing(dlq.NewMemory(dlq.MemoryConfig{}), dlq.Config{BatchSize: 4}, time.Hour)
		f.mixed(t, 60)
		poison := delivery.Envelope{Message: delivery.Message{ID: "poison", Recipient: "r"}, Generation: 2}
		require.NoError(t, f.giveUp(t.Context(), time.Now().Add(-time.Hour+40500*time.Millisecond), poison))
		f.forward = partly(map[string]error{"poison": delivery.ErrUnroutable})
		defer running(t, f.manager)()
		job := start(t, f.manager, dlq.Filter{}, 0)
		<-time.After(time.Hour)
		job = progress(t, f.manager, job.ID)
		assert.Equal(t, []any{dlq.JobDone, 60, 1}, []any{job.Status, job.Requeued, job.Failed})
	})
}

// Generations that somebody has thought of cost no pass each.
func TestReplayOfManyGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{Memory: dlq.NewMemory(dlq.MemoryConfig{})}
		lists := 0
		store.fail = func(op string) error {
			if op == "list" {
				lists++
			}
			return nil
		}
		f := newFailing(store, dlq.Config{}, -time.Second)
		for i := range 100 {
			require.NoError(t, f.giveUp(t.Context(), time.Now().Add(-time.Hour),
				delivery.Envelope{Message: delivery.Message{ID: fmt.Sprint(i), Recipient: "r"}, Generation: i * i * i * i}))
		}
		defer running(t, f.manager)()
		job := start(t, f.manager, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		assert.Equal(t, 100, progress(t, f.manager, job.ID).Requeued)
		f.requireEachSentOnce(t, 100)
		assert.Less(t, lists, 20)
	})
}

func TestReplayOfWhatWasRequeuedOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailing(dlq.NewMemory(dlq.MemoryConfig{}), dlq.Config{BatchSize: 7}, time.Hour)
		const count = 60
		for i := range count {
			envelope := delivery.Envelope{Message: delivery.Message{ID: fmt.Sprintf("%04d", i), Recipient: "r"}, Generation: 10 + i%20}
			require.NoError(t, f.giveUp(t.Context(), time.Now().Add(-time.Hour-time.Duration(i)*time.Second), envelope))
		}
		defer running(t, f.manager)()
		job := start(t, f.manager, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		assert.Equal(t, count, progress(t, f.manager, job.ID).Requeued)
		f.requireEachSentOnce(t, count)
	})
}

// reads counts the entries that are read page by page.
type reads struct {
	*dlq.Memory
	entries int
}

func (r *reads) List(ctx context.Context, query dlq.Query) (dlq.Page, error) {
	page, err := r.Memory.List(ctx, query)
	r.entries += len(page.Entries)
	return page, err
}

// Entries that are sent one by one are not read by the batch each time, though there
// are others between them.
func TestReplayOneByOneReadsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 120
		store := &reads{Memory: dlq.NewMemory(dlq.MemoryConfig{})}
		f := newFailing(store, dlq.Config{}, -time.Second)
		f.mixed(t, count)
		job := start(t, f.manager, dlq.Filter{}, 5)
		defer running(t, f.manager)()
		<-time.After(time.Minute)
		assert.Equal(t, count, progress(t, f.manager, job.ID).Requeued)
		assert.Less(t, store.entries, 10*count)
	})
}
