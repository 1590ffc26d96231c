package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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

// flaky is a Memory whose calls fail where fail says so; after a failed write
// nothing has been written.
type flaky struct {
	*dlq.Memory
	fail func(op string) error // nil fails nothing
}

func (f *flaky) err(op string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(op)
}

func (f *flaky) List(ctx context.Context, query dlq.Query) (dlq.Page, error) {
	if err := f.err("list"); err != nil {
		return dlq.Page{}, err
	}
	return f.Memory.List(ctx, query)
}

func (f *flaky) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	if err := f.err("claim"); err != nil {
		return make([]dlq.Entry, len(ids)), slices.Repeat([]error{err}, len(ids))
	}
	return f.Memory.Claim(ctx, claim, ids...)
}

func (f *flaky) Remove(ctx context.Context, token string, ids ...string) []error {
	if err := f.err("remove"); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	return f.Memory.Remove(ctx, token, ids...)
}

func (f *flaky) Release(ctx context.Context, token string, ids ...string) []error {
	if err := f.err("release"); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	return f.Memory.Release(ctx, token, ids...)
}

func (f *flaky) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := f.err("save"); err != nil {
		return err
	}
	return f.Memory.SaveJob(ctx, job)
}

func (f *flaky) Job(ctx context.Context, id string) (dlq.Job, error) {
	if err := f.err("job"); err != nil {
		return dlq.Job{}, err
	}
	return f.Memory.Job(ctx, id)
}

func (f *flaky) Jobs(ctx context.Context) ([]dlq.Job, error) {
	if err := f.err("jobs"); err != nil {
		return nil, err
	}
	return f.Memory.Jobs(ctx)
}

// filled has n letters, a second apart, the last one a minute ago.
func filled(t *testing.T, n int) *dlq.Memory {
	t.Helper()
	store := dlq.NewMemory(dlq.MemoryConfig{})
	manager := dlq.NewManager(store, nil, dlq.Config{})
	all := make([]delivery.DeadLetter, n)
	for i := range all {
		all[i] = letter(fmt.Sprintf("letter-%05d", i))
		all[i].At = time.Now().Add(-time.Minute - time.Duration(n-i)*time.Second)
	}
	require.NoError(t, manager.DeadLetter(context.Background(), all...))
	return store
}

// running runs the manager's jobs until the returned function is called.
func running(t *testing.T, manager *dlq.Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- manager.RunJobs(ctx) }()
	return func() {
		cancel()
		assert.NoError(t, <-ended)
	}
}

func start(t *testing.T, manager *dlq.Manager, filter dlq.Filter, rate float64) dlq.Job {
	t.Helper()
	job, err := manager.StartReplay(context.Background(), filter, dlq.ReplayConfig{Rate: rate})
	require.NoError(t, err)
	return job
}

func progress(t *testing.T, manager *dlq.Manager, id string) dlq.Job {
	t.Helper()
	job, err := manager.Job(context.Background(), id)
	require.NoError(t, err)
	return job
}

// requireSentOnce wants each of n letters sent once, as generation 1.
func requireSentOnce(t *testing.T, sender *sender, n int) {
	t.Helper()
	times := make(map[string]int)
	for _, envelope := range sender.sent() {
		times[envelope.ID]++
		require.Equal(t, 1, envelope.Generation)
	}
	require.Len(t, times, n)
	for id, n := range times {
		require.Equal(t, 1, n, id)
	}
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
			After:     delivery.Position{At: begin.Add(-time.Minute - time.Second).UTC(), ID: "letter-00249"},
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

func TestReplayPassesByWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 20)
		all, _ := letters(6)
		for i := range all {
			all[i].At = time.Now().Add(-time.Hour)
		}
		all[0].Reason = delivery.ReasonMalformed
		all[1].Envelope.Recipient = ""
		poison := errors.New("frame \"x\" can't be written")
		sender := &sender{forward: partly(map[string]error{
			"message of letter-002": &delivery.TooLargeError{Field: "Body"},
			"message of letter-003": poison,
			"message of letter-004": poison,
		})}
		manager := requeuer(t, store, sender, dlq.Config{BatchSize: 4}, all...)
		store.Claim(t.Context(), dlq.Claim{Token: "somebody", Now: time.Now(), Lease: time.Hour}, "letter-005", "letter-00010")
		preview, err := manager.Preview(t.Context(), dlq.Filter{})
		require.NoError(t, err)
		assert.Equal(t, 26, preview.Count)
		assert.Equal(t, 1, preview.Malformed)

		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, []int{26, 19, 2, 5}, []int{job.Total, job.Requeued, job.Skipped, job.Failed})
		assert.Contains(t, job.LastError, poison.Error())
		assert.ElementsMatch(t, []string{"letter-000", "letter-001", "letter-002", "letter-003", "letter-004", "letter-005", "letter-00010"}, kept(t, manager))
		results, _ := manager.Delete(t.Context(), "letter-000", "letter-001", "letter-002", "letter-003", "letter-004")
		for _, result := range results {
			assert.NoError(t, result.Err, "it is free again")
		}
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

// A queue takes a few at a time and refuses the others: that is no fault of
// theirs, however often it happens.
func TestReplayIntoAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := make(map[string]int)
		sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
			failed := &delivery.ResultsError{}
			for i := range envelopes {
				result := delivery.Result{ID: envelopes[i].ID, Err: delivery.ErrRefused}
				if i == len(envelopes)-1 {
					result.Err = nil
					taken[result.ID]++
				}
				failed.Results = append(failed.Results, result)
			}
			if len(envelopes) == 1 {
				return nil
			}
			return failed
		}}
		manager := dlq.NewManager(filled(t, 60), sender, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Hour)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, 60, job.Requeued)
		assert.Zero(t, job.Failed)
		for id, n := range taken {
			assert.Equal(t, 1, n, id)
		}
	})
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

func TestReplayIsPickedUpElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 5)
		sender := &sender{}
		defer running(t, dlq.NewManager(store, sender, dlq.Config{}))()
		console := dlq.NewManager(store, nil, dlq.Config{})
		job := start(t, console, dlq.Filter{}, 0)
		<-time.After(6 * time.Second)
		assert.Equal(t, dlq.JobDone, progress(t, console, job.ID).Status)
		jobs, err := console.Jobs(t.Context())
		require.NoError(t, err)
		assert.Len(t, jobs, 1)
	})
}

// An error that nobody knows befalls one entry for a while, and others are sent
// meanwhile: it is tried again before it counts against the entry.
func TestReplayTriesAgainWhatMayBeAnEntrysFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		sender := &sender{forward: func(ctx context.Context, envelopes []delivery.Envelope) error {
			return partly(map[string]error{"message of letter-00003": func() error {
				if slices.ContainsFunc(envelopes, func(e delivery.Envelope) bool { return e.ID == "message of letter-00003" }) && tries.Add(1) <= 4 {
					return errors.New("odd")
				}
				return nil
			}()})(ctx, envelopes)
		}}
		manager := dlq.NewManager(filled(t, 10), sender, dlq.Config{BatchSize: 5})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, []int{10, 0}, []int{job.Requeued, job.Failed})
		assert.EqualValues(t, 5, tries.Load())
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
