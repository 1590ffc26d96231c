package dlq_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

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

// times notes when entries were sent.
type times struct {
	mu sync.Mutex
	at []time.Time
}

func (c *times) note(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		c.at = append(c.at, time.Now())
	}
}

// requireCap wants no window of time to have more than the rate allows, give or
// take one group.
func (c *times) requireCap(t *testing.T, rate float64) {
	t.Helper()
	group := max(1, int(rate/10))
	for i := range c.at {
		for k := i; k < len(c.at); k++ {
			allowed := rate*c.at[k].Sub(c.at[i]).Seconds() + float64(group)*3/2
			if float64(k-i+1) > allowed+1e-6 {
				t.Fatalf("from %d to %d are more than the %.1f allowed", i, k, allowed)
			}
		}
	}
}

func TestReplayRate(t *testing.T) {
	for _, rate := range []float64{0.5, 3, 10, 25, 99, 400} {
		for _, slow := range []time.Duration{0, 30 * time.Millisecond} {
			t.Run(fmt.Sprint(rate, slow), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const count = 600
					times := &times{}
					sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
						times.note(len(envelopes))
						<-time.After(slow)
						return nil
					}}
					manager := dlq.NewManager(filled(t, count), sender, dlq.Config{})
					defer running(t, manager)()
					job := start(t, manager, dlq.Filter{}, rate)
					<-time.After(time.Hour)
					job = progress(t, manager, job.ID)
					require.Equal(t, count, job.Requeued)
					times.requireCap(t, rate)
					took := times.at[count-1].Sub(times.at[0]).Seconds()
					require.InEpsilon(t, (count-max(1, rate/10))/rate, took, 0.01, "nor is it slower")
				})
			})
		}
	}
}

// Neither an outage nor a restart nor a slow sender is made up for by a burst.
func TestReplayRateAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 40
		store := filled(t, 500)
		times := &times{}
		begin := time.Now()
		sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
			since := time.Since(begin)
			if since > 2*time.Second && since < 30*time.Second {
				return delivery.ErrBlocked
			}
			times.note(len(envelopes))
			if len(times.at)%52 == 0 {
				<-time.After(700 * time.Millisecond)
			}
			return nil
		}}
		manager := dlq.NewManager(store, sender, dlq.Config{})
		stop := running(t, manager)
		job := start(t, manager, dlq.Filter{}, rate)
		<-time.After(time.Minute - 15*time.Second)
		stop()
		<-time.After(time.Minute)
		defer running(t, dlq.NewManager(store, sender, dlq.Config{}))()
		<-time.After(time.Minute)
		require.Equal(t, 500, progress(t, manager, job.ID).Requeued)
		times.requireCap(t, rate)
	})
}
