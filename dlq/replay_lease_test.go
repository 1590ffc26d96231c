package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// The store's answer to a change gets lost; the client tries again, and is told
// that somebody changed the job.
func TestReplayWhenAnswersGetLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &forgetful{Memory: filled(t, 40)}
		sender := &sender{}
		manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 10})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(10 * time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, 40, job.Requeued)
		requireSentOnce(t, sender, 40)
	})
}

type forgetful struct{ *dlq.Memory }

func (f *forgetful) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := f.Memory.SaveJob(ctx, job); err != nil {
		return err
	}
	return fmt.Errorf("second try: %w", dlq.ErrJobChanged)
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

func TestReplayGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 100)
		sender := &sender{}
		config := dlq.Config{BatchSize: 10}
		manager := dlq.NewManager(store, sender, config)
		job := start(t, manager, dlq.Filter{}, 10)
		for range 4 {
			stop := running(t, dlq.NewManager(store, sender, config))
			<-time.After(1900 * time.Millisecond)
			stop()
			now := progress(t, manager, job.ID)
			assert.Equal(t, dlq.JobRunning, now.Status)
			assert.Empty(t, now.Owner, "it is left for others")
			assert.Equal(t, len(sender.sent()), now.Requeued)
		}
		assert.InDelta(t, 80, len(sender.sent()), 4)
		defer running(t, dlq.NewManager(store, sender, config))()
		<-time.After(time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, 100, job.Requeued)
		requireSentOnce(t, sender, 100)
	})
}

// A runner dies between the confirm of a batch and its removal. Another takes
// over when the lease ends, and sends that batch again as the same generation.
func TestReplayAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := filled(t, 100)
		store := &flaky{Memory: memory}
		dead, dies := context.WithCancel(context.Background())
		store.fail = func(string) error { return dead.Err() }
		sender := &sender{}
		sender.forward = func(context.Context, []delivery.Envelope) error {
			if sender.count() == 4 {
				dies() // nothing it does has an effect any more
			}
			return nil
		}
		config := dlq.Config{BatchSize: 10}
		dying := dlq.NewManager(store, sender, config)
		stop := running(t, dying)
		job := start(t, dying, dlq.Filter{}, 0)
		synctest.Wait()
		crashed := time.Now()
		<-time.After(time.Second)
		stop()

		heir := dlq.NewManager(memory, sender, config)
		defer running(t, heir)()
		<-time.After(time.Until(crashed.Add(dlq.DefaultLease - time.Second)))
		assert.Equal(t, 4, sender.count(), "the lease is not over")
		owned := progress(t, heir, job.ID)
		assert.NotEmpty(t, owned.Owner)
		assert.Equal(t, crashed.Add(dlq.DefaultLease).UTC(), owned.LeaseUntil)
		<-time.After(10 * time.Second)
		job = progress(t, heir, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Zero(t, job.Skipped, "no entry was still claimed by the dead")
		assert.Empty(t, kept(t, heir))
		times := make(map[string]int)
		twice := 0
		for _, envelope := range sender.sent() {
			assert.Equal(t, 1, envelope.Generation)
			if times[envelope.ID]++; times[envelope.ID] > 1 {
				twice++
			}
		}
		assert.Len(t, times, 100)
		assert.LessOrEqual(t, twice, 20, "only what was on its way")
	})
}

// A job that waits for longer than its lease lasts stays with its runner.
func TestReplayKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 50)
		config := dlq.Config{Lease: 10 * time.Second}
		manager := dlq.NewManager(store, &sender{}, config)
		defer running(t, manager)()
		defer running(t, dlq.NewManager(store, &sender{}, config))()
		job := start(t, manager, dlq.Filter{}, 0.01)
		synctest.Wait()
		owner := progress(t, manager, job.ID).Owner
		assert.NotEmpty(t, owner)
		for range 500 {
			<-time.After(time.Second)
			job = progress(t, manager, job.ID)
			require.Equal(t, owner, job.Owner)
			require.True(t, time.Now().Before(job.LeaseUntil))
		}
	})
}

// A runner that stops could not give back what it claimed: nobody takes its job
// before the claims have ended, or they would be in the way.
func TestReplayIsHeldAsLongAsItsClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := filled(t, 10)
		store := &flaky{Memory: memory, fail: func(op string) error {
			if op == "release" {
				return errors.New("store is down")
			}
			return nil
		}}
		blocked := &sender{forward: func(context.Context, []delivery.Envelope) error { return delivery.ErrBlocked }}
		stop := running(t, dlq.NewManager(store, blocked, dlq.Config{}))
		sender := &sender{}
		heir := dlq.NewManager(memory, sender, dlq.Config{})
		job := start(t, heir, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		stop()
		assert.NotEmpty(t, progress(t, heir, job.ID).Owner)
		defer running(t, heir)()
		<-time.After(5 * time.Minute)
		job = progress(t, heir, job.ID)
		assert.Equal(t, []int{10, 0}, []int{job.Requeued, job.Skipped})
		requireSentOnce(t, sender, 10)
	})
}
