package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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

// What a batch holds is put again with other properties between reading and
// claiming: it is no longer the job's.
func TestReplayLeavesWhatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &replacing{Memory: filled(t, 3)}
		manager := dlq.NewManager(store, &sender{}, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		synctest.Wait()
		job = progress(t, manager, job.ID)
		assert.Equal(t, []int{2, 1, 0}, []int{job.Requeued, job.Skipped, job.Failed})
		assert.Equal(t, []string{"letter-00001"}, kept(t, manager))
		_, err := manager.Delete(t.Context(), "letter-00001")
		require.NoError(t, err, "it is free")
	})
}

type replacing struct{ *dlq.Memory }

func (r *replacing) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	entries, errs := r.Get(ctx, "letter-00001")
	if err := errors.Join(errs...); err != nil {
		return nil, errs
	}
	entries[0].DeadAt = claim.Now
	if err := r.Put(ctx, entries[0]); err != nil {
		return nil, []error{err}
	}
	return r.Memory.Claim(ctx, claim, ids...)
}

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
		<-time.After(time.Minute) // no bubble ends before its last goroutine
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
				told = append(told, event["dead_letter_ids"].([]any)...)
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

func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 250)
		other := letter("other")
		other.Envelope.Type = "push"
		sender := &sender{}
		log := &log{}
		manager := requeuer(t, store, sender, dlq.Config{Logger: log.logger()}, other)
		filter := dlq.Filter{Type: "sms"}
		preview, err := manager.Preview(t.Context(), filter)
		require.NoError(t, err)
		assert.Equal(t, dlq.Preview{
			Count: 250, Oldest: time.Now().Add(-time.Minute - 250*time.Second).UTC(), Newest: time.Now().Add(-time.Minute - time.Second).UTC(),
		}, preview)

		stop := running(t, manager)
		begin := time.Now()
		job := start(t, manager, filter, 0)
		synctest.Wait()
		assert.Equal(t, begin, time.Now(), "a runner here begins at once")
		job = progress(t, manager, job.ID)
		assert.Positive(t, job.Version)
		job.Version, job.ID = 0, ""
		assert.Equal(t, dlq.Job{
			Filter: dlq.Filter{Type: "sms", Until: begin.UTC()}, Status: dlq.JobDone, Total: 250, Requeued: 250,
			After: delivery.Position{At: begin.Add(-time.Minute - time.Second).UTC(), ID: "letter-00249"}, Sends: 1,
			CreatedAt: begin.UTC(), UpdatedAt: begin.UTC(), FinishedAt: begin.UTC(),
		}, job)
		requireSentOnce(t, sender, 250)
		assert.Equal(t, 3, sender.count())
		assert.True(t, slices.IsSortedFunc(sender.sent(), func(a, b delivery.Envelope) int { return cmpText(a.ID, b.ID) }), "oldest first")
		assert.Equal(t, []string{"other"}, kept(t, manager))
		stop()
		log.events(t)
	})
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func TestReplayOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager := dlq.NewManager(filled(t, 3), &sender{}, dlq.Config{})
		preview, err := manager.Preview(t.Context(), dlq.Filter{Source: "nobody"})
		require.NoError(t, err)
		assert.Equal(t, dlq.Preview{}, preview)
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{Source: "nobody"}, 1)
		synctest.Wait()
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Zero(t, job.Total)
	})
}

// What the job sends fails again at once: it must not be sent again by the job.
func TestReplayLeavesWhatDiesMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var manager *dlq.Manager
		sender := &sender{forward: func(ctx context.Context, envelopes []delivery.Envelope) error {
			for _, envelope := range envelopes {
				again := letter(fmt.Sprintf("%s again %d", envelope.ID, envelope.Generation))
				again.Envelope = envelope
				again.At = time.Now()
				if err := manager.DeadLetter(ctx, again); err != nil {
					return err
				}
			}
			return nil
		}}
		manager = dlq.NewManager(filled(t, 30), sender, dlq.Config{BatchSize: 7})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		assert.Equal(t, dlq.JobDone, progress(t, manager, job.ID).Status)
		requireSentOnce(t, sender, 30)
		assert.Len(t, kept(t, manager), 30)
		// The next one takes them.
		job = start(t, manager, dlq.Filter{}, 0)
		synctest.Wait()
		assert.Equal(t, 30, progress(t, manager, job.ID).Requeued)
		assert.Len(t, sender.sent(), 60)
	})
}

func TestReplaysOfTheSameEntriesShareThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 200)
		sender := &sender{}
		sender.forward = func(context.Context, []delivery.Envelope) error {
			<-time.After(10 * time.Millisecond)
			return nil
		}
		var managers []*dlq.Manager
		for range 3 {
			manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 9})
			managers = append(managers, manager)
			defer running(t, manager)()
		}
		var jobs []dlq.Job
		for i := range 4 {
			jobs = append(jobs, start(t, managers[i%3], dlq.Filter{}, float64(i*200)))
		}
		<-time.After(time.Minute)
		total := 0
		for _, job := range jobs {
			job = progress(t, managers[0], job.ID)
			assert.Equal(t, dlq.JobDone, job.Status)
			assert.Zero(t, job.Failed)
			total += job.Requeued
		}
		assert.Equal(t, 200, total)
		requireSentOnce(t, sender, 200)
		assert.Empty(t, kept(t, managers[0]))
	})
}

// The transport is down for a while, in different ways: nothing fails, nothing
// is lost, and the job says why it waits.
func TestReplayWaitsForTheTransport(t *testing.T) {
	for name, outage := range map[string]func([]delivery.Envelope) error{
		"whole call": func([]delivery.Envelope) error { return errors.New("connection refused") },
		"blocked":    func([]delivery.Envelope) error { return delivery.ErrBlocked },
		"each": func(envelopes []delivery.Envelope) error {
			failed := &delivery.ResultsError{}
			for i := range envelopes {
				failed.Results = append(failed.Results, delivery.Result{ID: envelopes[i].ID, Err: delivery.ErrRefused})
			}
			return failed
		},
		"unroutable": func(envelopes []delivery.Envelope) error { return delivery.ErrUnroutable },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				back := time.Now().Add(10 * time.Minute)
				var confirmed atomic.Int32
				var tries atomic.Int32
				sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
					if n := confirmed.Load(); n >= 30 && time.Now().Before(back) {
						tries.Add(1)
						return outage(envelopes)
					}
					confirmed.Add(int32(len(envelopes)))
					return nil
				}}
				manager := dlq.NewManager(filled(t, 100), sender, dlq.Config{BatchSize: 10})
				defer running(t, manager)()
				job := start(t, manager, dlq.Filter{}, 0)
				<-time.After(9 * time.Minute)
				job = progress(t, manager, job.ID)
				assert.Equal(t, dlq.JobRunning, job.Status)
				assert.Equal(t, 30, job.Requeued)
				assert.NotEmpty(t, job.LastError)
				assert.Len(t, kept(t, manager), 70)
				assert.Less(t, tries.Load(), int32(60), "it backs off")
				_, err := manager.Delete(t.Context(), "letter-00099")
				require.NoError(t, err, "nothing is held while it waits")
				<-time.After(2 * time.Minute)
				job = progress(t, manager, job.ID)
				assert.Equal(t, dlq.JobDone, job.Status)
				assert.Equal(t, 99, job.Requeued)
				assert.Zero(t, job.Failed+job.Skipped)
				assert.EqualValues(t, 99, confirmed.Load())
				assert.Empty(t, kept(t, manager))
			})
		})
	}
}

// The store fails now and then, in every place: what was sent is not sent again.
func TestReplayWithAStoreThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{Memory: filled(t, 100)}
		sender := &sender{}
		manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 8})
		job := start(t, manager, dlq.Filter{}, 0)
		down := errors.New("store is down")
		store.fail = func(string) error {
			if rand.N(2) > 0 {
				return down
			}
			return nil
		}
		stop := running(t, manager)
		<-time.After(5 * time.Hour)
		stop()
		store.fail = nil
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, 100, job.Requeued)
		requireSentOnce(t, sender, 100)
		assert.Empty(t, kept(t, manager))
	})
}

// The store is away for longer than any lease, from the moment on at which a
// batch was sent.
func TestReplayRemovesWhatWasSentWhenTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &flaky{Memory: filled(t, 30)}
		var down atomic.Bool
		store.fail = func(string) error {
			if down.Load() {
				return errors.New("store is down")
			}
			return nil
		}
		sender := &sender{}
		sender.forward = func(context.Context, []delivery.Envelope) error {
			if sender.count() == 2 {
				down.Store(true)
			}
			return nil
		}
		manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 10, Lease: time.Second})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Hour)
		assert.Equal(t, 2, sender.count())
		down.Store(false)
		<-time.After(time.Minute)
		assert.Equal(t, 30, progress(t, manager, job.ID).Requeued)
		requireSentOnce(t, sender, 30)
	})
}

func TestCancelInTheMiddleOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, elsewhere := range []bool{false, true} {
			store := filled(t, 50)
			reached, proceed := make(chan struct{}), make(chan struct{})
			sender := &sender{}
			sender.forward = func(context.Context, []delivery.Envelope) error {
				if sender.count() == 3 {
					close(reached)
					<-proceed
				}
				return nil
			}
			manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 10})
			canceller := manager
			if elsewhere {
				canceller = dlq.NewManager(store, nil, dlq.Config{})
			}
			stop := running(t, manager)
			job := start(t, manager, dlq.Filter{}, 0)
			<-reached
			require.NoError(t, canceller.CancelReplay(t.Context(), job.ID))
			assert.Equal(t, dlq.JobCancelled, progress(t, manager, job.ID).Status)
			<-time.After(time.Second)
			close(proceed)
			synctest.Wait()
			job = progress(t, manager, job.ID)
			assert.Equal(t, dlq.JobCancelled, job.Status)
			if sent := 30; elsewhere {
				assert.Contains(t, []int{sent, sent + 10}, job.Requeued, "it may have read the next batch")
			} else {
				assert.Equal(t, sent, job.Requeued, "what was sent is counted")
			}
			assert.Empty(t, job.Owner)
			assert.Equal(t, time.Now().Add(-time.Second).UTC(), job.FinishedAt)
			requireSentOnce(t, sender, job.Requeued)
			assert.Len(t, kept(t, manager), 50-job.Requeued)
			results, err := manager.Delete(t.Context(), kept(t, manager)...)
			require.NoError(t, err, results)
			stop()
		}
	})
}

func TestCancelWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 50)
		sender := &sender{}
		manager := dlq.NewManager(store, sender, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0.01)
		<-time.After(4*time.Minute + 50*time.Second)
		assert.Equal(t, 3, sender.count())
		require.NoError(t, dlq.NewManager(store, nil, dlq.Config{}).CancelReplay(t.Context(), job.ID))
		<-time.After(1100 * time.Millisecond)
		job = progress(t, manager, job.ID)
		assert.Empty(t, job.Owner, "a runner elsewhere notices within a second")
		<-time.After(time.Hour)
		assert.Equal(t, 3, sender.count())
	})
}

// A sender that hangs is cut off some seconds after the runner shall stop.
func TestReplayWithASenderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		sender := &sender{forward: func(ctx context.Context, _ []delivery.Envelope) error {
			if mended.Load() {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		manager := dlq.NewManager(filled(t, 5), sender, dlq.Config{})
		stop := running(t, manager)
		job := start(t, manager, dlq.Filter{}, 0)
		synctest.Wait()
		begin := time.Now()
		stop()
		assert.Equal(t, 5*time.Second, time.Since(begin))
		assert.Len(t, kept(t, manager), 5)

		// Half of the lease is all that it gets otherwise.
		stop = running(t, manager)
		<-time.After(10 * time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobRunning, job.Status)
		assert.Contains(t, job.LastError, "deadline")
		mended.Store(true)
		<-time.After(10 * time.Minute)
		assert.Equal(t, 5, progress(t, manager, job.ID).Requeued)
		stop()
	})
}
