package dlq_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

// A sender that is slow has confirmed some of a batch when its time is over.
// Those are gone, and counted, or whoever goes on would send them again.
func TestReplayNotesWhatWasConfirmedAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 10)
		reached := make(chan struct{}, 1)
		sender := &sender{forward: func(ctx context.Context, envelopes []delivery.Envelope) error {
			reached <- struct{}{}
			<-ctx.Done()
			failed := &delivery.ResultsError{}
			for i := range envelopes {
				result := delivery.Result{ID: envelopes[i].ID}
				if i%2 == 1 {
					result.Err = delivery.ErrOutcomeUnknown
				}
				failed.Results = append(failed.Results, result)
			}
			return failed
		}}
		manager := dlq.NewManager(store, sender, dlq.Config{})
		stop := running(t, manager)
		job := start(t, manager, dlq.Filter{}, 0)
		<-reached
		stop()
		assert.Len(t, kept(t, manager), 5)
		job = progress(t, manager, job.ID)
		assert.Equal(t, 5, job.Requeued)
		assert.Empty(t, job.Owner)
	})
}

// saving is a Memory that tells of each saved job before the caller knows.
type saving struct {
	*dlq.Memory
	saved func(job dlq.Job) error // what the caller gets
}

func (s *saving) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := s.Memory.SaveJob(ctx, job); err != nil {
		return err
	}
	return s.saved(job)
}

// Between the moment at which a runner has a job and the one at which it begins,
// somebody cancels it.
func TestCancelWhileAJobIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var manager *dlq.Manager
		cancelled := false
		store := &saving{Memory: filled(t, 5), saved: func(job dlq.Job) error {
			if job.Owner == "" || cancelled {
				return nil
			}
			cancelled = true
			return manager.CancelReplay(context.Background(), job.ID)
		}}
		sender := &sender{}
		manager = dlq.NewManager(store, sender, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		synctest.Wait()
		assert.Zero(t, sender.count())
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobCancelled, job.Status)
		assert.Empty(t, job.Owner)
	})
}

// The answer to a renewed lease gets lost, and the runner has to stop before it
// can ask again.
func TestReplayIsGivenBackAfterALostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		saves := 0
		store := &saving{Memory: filled(t, 5), saved: func(job dlq.Job) error {
			if job.Requeued == 0 {
				return nil
			}
			if saves++; saves != 2 {
				return nil
			}
			cancel()
			return errors.New("connection lost")
		}}
		manager := dlq.NewManager(store, &sender{}, dlq.Config{})
		job := start(t, manager, dlq.Filter{}, 0.01)
		require.NoError(t, manager.RunJobs(ctx))
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobRunning, job.Status)
		assert.Empty(t, job.Owner)
	})
}

// A count that hangs holds up neither a job nor its end.
func TestReplayWithACountThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hanging{Memory: filled(t, 50)}
		manager := dlq.NewManager(store, &sender{}, dlq.Config{BatchSize: 10, Metrics: metrics.NewCollector(metrics.CollectorConfig{})})
		job := start(t, manager, dlq.Filter{}, 0)
		slow := start(t, manager, dlq.Filter{Source: "sms-consumer"}, 0.01)
		store.hangs.Store(true)
		stop := running(t, manager)
		<-time.After(10 * time.Minute)
		assert.Equal(t, dlq.JobDone, progress(t, manager, job.ID).Status)
		stop()
		assert.Empty(t, progress(t, manager, slow.ID).Owner)
	})
}

type hanging struct {
	*dlq.Memory
	hangs atomic.Bool
}

func (h *hanging) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return h.Memory.Count(ctx, filter)
}

// What a runner could not give back is still claimed when it stops, whatever else
// went well or wrong since.
func TestReplayIsHeldUntilItsClaimsHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := filled(t, 10)
		var down atomic.Bool
		store := &flaky{Memory: memory, fail: func(op string) error {
			if op == "release" {
				down.Store(true)
			}
			if down.Load() && (op == "release" || op == "list") {
				return errors.New("store is down")
			}
			return nil
		}}
		blocked := &sender{forward: func(context.Context, []delivery.Envelope) error { return delivery.ErrBlocked }}
		stop := running(t, dlq.NewManager(store, blocked, dlq.Config{}))
		sender := &sender{}
		heir := dlq.NewManager(memory, sender, dlq.Config{})
		job := start(t, heir, dlq.Filter{}, 0)
		<-time.After(10 * time.Second)
		stop()
		defer running(t, heir)()
		<-time.After(5 * time.Minute)
		job = progress(t, heir, job.ID)
		assert.Equal(t, []int{10, 0}, []int{job.Requeued, job.Skipped})
		requireSentOnce(t, sender, 10)
	})
}

// Claiming takes long now and then: what it delays is not followed at once by
// the next.
func TestReplayRateWhenClaimingIsSlow(t *testing.T) {
	for _, rate := range []float64{1, 40} {
		synctest.Test(t, func(t *testing.T) {
			var claims atomic.Int32
			store := &flaky{Memory: filled(t, 300), fail: func(op string) error {
				if op == "claim" && claims.Add(1)%7 == 0 {
					<-time.After(3 * time.Second)
				}
				return nil
			}}
			times := &times{}
			sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
				times.note(len(envelopes))
				return nil
			}}
			manager := dlq.NewManager(store, sender, dlq.Config{})
			defer running(t, manager)()
			job := start(t, manager, dlq.Filter{}, rate)
			<-time.After(time.Hour)
			require.Equal(t, 300, progress(t, manager, job.ID).Requeued)
			times.requireCap(t, rate)
		})
	}
}

// Runners that come and go do not make a job faster than its cap.
func TestReplayRateOverRestarts(t *testing.T) {
	for _, rate := range []float64{0.05, 1, 30} {
		synctest.Test(t, func(t *testing.T) {
			store := filled(t, 100)
			times := &times{}
			sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
				times.note(len(envelopes))
				return nil
			}}
			job := start(t, dlq.NewManager(store, sender, dlq.Config{}), dlq.Filter{}, rate)
			for range 50 {
				stop := running(t, dlq.NewManager(store, sender, dlq.Config{}))
				<-time.After(70 * time.Millisecond)
				stop()
			}
			times.requireCap(t, rate)
			manager := dlq.NewManager(store, sender, dlq.Config{})
			defer running(t, manager)()
			<-time.After(time.Hour)
			require.Equal(t, 100, progress(t, manager, job.ID).Requeued)
			times.requireCap(t, rate)
		})
	}
}

// A clock that was far ahead does not stop a job.
func TestReplayBelievesNoClockThatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 3)
		manager := dlq.NewManager(store, &sender{}, dlq.Config{})
		job := start(t, manager, dlq.Filter{}, 1)
		job.NextAt = time.Now().Add(24 * time.Hour)
		require.NoError(t, store.SaveJob(t.Context(), job))
		defer running(t, manager)()
		<-time.After(time.Minute)
		assert.Equal(t, 3, progress(t, manager, job.ID).Requeued)
	})
}

// Under a cap of some a second entries go one by one. One that always fails, or
// several in a row, must not hold back the others: those behind tell that it is
// not the transport.
func TestReplayOneByOnePassesByWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 20)
		poison := errors.New("frame can't be written")
		var mu sync.Mutex
		tries := make(map[string]int)
		times := &times{}
		sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
			times.note(len(envelopes))
			mu.Lock()
			defer mu.Unlock()
			id := envelopes[0].ID
			tries[id]++
			if slices.Contains([]string{"message of letter-00000", "message of letter-00004", "message of letter-00005", "message of letter-00006", "message of letter-00019"}, id) {
				return poison
			}
			return nil
		}}
		manager := dlq.NewManager(store, sender, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 1)
		<-time.After(time.Hour)
		job = progress(t, manager, job.ID)
		t.Log(job.LastError, tries)
		// Behind the last there is nothing that could tell.
		assert.Equal(t, []int{15, 0, 4}, []int{job.Requeued, job.Skipped, job.Failed})
		assert.Equal(t, dlq.JobRunning, job.Status)
		assert.Equal(t, poison.Error(), job.LastError)
		for id, n := range tries {
			if id != "message of letter-00019" {
				assert.LessOrEqual(t, n, 40, id)
			}
		}
		times.requireCap(t, 1)
	})
}

// A store that takes no changes is told of once, not silently waited for, and so
// is what was sent and could not be removed when the runner had to stop.
func TestReplayTellsOfAStoreThatTakesNoChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		store := &flaky{Memory: filled(t, 30), fail: func(op string) error {
			if down.Load() && (op == "remove" || op == "save") {
				return errors.New("read only")
			}
			return nil
		}}
		sender := &sender{}
		sender.forward = func(context.Context, []delivery.Envelope) error {
			if sender.count() == 2 {
				down.Store(true)
			}
			return nil
		}
		log := &log{}
		manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 10, Logger: log.logger()})
		stop := running(t, manager)
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Hour)
		stop()
		waits := 0
		var told []any
		for _, event := range log.events(t) {
			if event["level"] != "WARN" || event["job"] != job.ID {
				continue
			}
			assert.Contains(t, event["error"], "read only")
			switch event["msg"] {
			case "replay waits for its store":
				waits++
			case "replayed entries not removed":
				told = append(told, event["ids"].([]any)...)
			}
		}
		assert.Positive(t, waits)
		assert.Less(t, waits, 10, "not of each try")
		var left []any
		for _, envelope := range sender.sent() {
			if id := strings.TrimPrefix(envelope.ID, "message of "); slices.Contains(kept(t, manager), id) {
				left = append(left, id)
			}
		}
		assert.NotEmpty(t, left)
		assert.ElementsMatch(t, left, told)
	})
}
