package dlq_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// chance says yes now and then, to any number of goroutines.
type chance struct {
	mu   sync.Mutex
	rand *rand.Rand
	off  bool
}

func (c *chance) oneIn(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.off && c.rand.IntN(n) == 0
}

func (c *chance) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
}

// TestReplaysLoseAndRepeatNothing has runners come, go and die, a store and a
// transport that fail now and then, jobs that are started and cancelled, and
// people who requeue by hand. In the end every letter was confirmed, and none
// more often than runners died.
func TestReplaysLoseAndRepeatNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		count := rapid.IntRange(1, 40).Draw(r, "letters")
		seed := rapid.Uint64().Draw(r, "seed")
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{
			"start", "start slow", "cancel", "run", "run", "stop", "crash", "requeue", "wait", "wait", "wait long",
		}), 1, 25).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) {
			faults := &chance{rand: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // a test
			memory := filled(t, count)
			times := &sync.Map{}
			sender := forwardFunc(func(ctx context.Context, envelopes ...delivery.Envelope) error {
				if faults.oneIn(3) {
					return delivery.ErrBlocked
				}
				<-time.After(time.Millisecond)
				failed := &delivery.ResultsError{}
				for i := range envelopes {
					result := delivery.Result{ID: envelopes[i].ID}
					if faults.oneIn(10) {
						result.Err = delivery.ErrRefused
					} else {
						n, _ := times.LoadOrStore(result.ID, 0)
						times.Store(result.ID, n.(int)+1)
					}
					failed.Results = append(failed.Results, result)
				}
				if len(failed.Unwrap()) == 0 {
					return nil
				}
				return failed
			})
			config := dlq.Config{BatchSize: 7, Lease: time.Minute}
			member := func(alive context.Context) *dlq.Manager {
				store := &flaky{Memory: memory, fail: func(string) error {
					if alive.Err() != nil || faults.oneIn(6) {
						return errors.New("store is down")
					}
					return nil
				}}
				return dlq.NewManager(store, sender, config)
			}
			type runner struct {
				stop func()
				die  context.CancelFunc
			}
			var runners []runner
			run := func() {
				alive, die := context.WithCancel(context.Background())
				runners = append(runners, runner{stop: running(t, member(alive)), die: die})
			}
			console := dlq.NewManager(memory, sender, config)
			ctx := t.Context()
			var jobs []string
			crashes := 0
			for _, step := range steps {
				switch step {
				case "start", "start slow":
					rate := 0.0
					if step == "start slow" {
						rate = 5
					}
					if job, err := console.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{Rate: rate}); err == nil {
						jobs = append(jobs, job.ID)
					}
				case "cancel":
					if len(jobs) > 0 {
						err := console.CancelReplay(ctx, jobs[len(jobs)-1])
						require.True(t, err == nil || errors.Is(err, dlq.ErrJobFinished), "%v", err)
					}
				case "run":
					run()
				case "stop", "crash":
					if len(runners) == 0 {
						continue
					}
					if step == "crash" {
						runners[0].die()
						crashes++
					}
					runners[0].stop()
					runners[0].die()
					runners = runners[1:]
				case "requeue":
					_, _ = console.Requeue(ctx, "letter-00000", "letter-00003")
				case "wait":
					<-time.After(300 * time.Millisecond)
				case "wait long":
					<-time.After(40 * time.Second)
				}
			}
			faults.stop()
			run()
			<-time.After(5 * time.Minute)
			for _, id := range jobs {
				job := progress(t, console, id)
				require.True(t, job.Finished())
				require.Zero(t, job.Failed)
				require.LessOrEqual(t, job.Requeued, count)
			}
			last := start(t, console, dlq.Filter{}, 0)
			<-time.After(5 * time.Minute)
			require.Equal(t, dlq.JobDone, progress(t, console, last.ID).Status)
			for _, r := range runners {
				r.stop()
				r.die()
			}
			require.Empty(t, kept(t, console))
			sent := 0
			times.Range(func(id, n any) bool {
				sent++
				require.LessOrEqual(t, n.(int), 1+crashes, id)
				return true
			})
			require.Equal(t, count, sent)
		})
	})
}

// priced is a store as a database is one: each call takes its time, and each row
// some more.
type priced struct{ *dlq.Memory }

const (
	readCost  = time.Millisecond     // a query
	writeCost = 4 * time.Millisecond // a transaction, on a disk that it waits for
	rowCost   = 50 * time.Microsecond
)

func (p priced) List(ctx context.Context, query dlq.Query) (dlq.Page, error) {
	<-time.After(readCost + time.Duration(query.Limit)*rowCost)
	return p.Memory.List(ctx, query)
}

func (p priced) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	<-time.After(writeCost + time.Duration(len(ids))*rowCost)
	return p.Memory.Claim(ctx, claim, ids...)
}

func (p priced) Remove(ctx context.Context, token string, ids ...string) []error {
	<-time.After(writeCost + time.Duration(len(ids))*rowCost)
	return p.Memory.Remove(ctx, token, ids...)
}

func (p priced) SaveJob(ctx context.Context, job dlq.Job) error {
	<-time.After(writeCost)
	return p.Memory.SaveJob(ctx, job)
}

// 10,000 entries, one by one and by a job, where a database and a broker take
// their time. The clock is not real, so that the machine has no say.
func TestReplayIsFasterThanRequeueing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 3_000
		sender := forwardFunc(func(_ context.Context, envelopes ...delivery.Envelope) error {
			<-time.After(time.Millisecond + time.Duration(len(envelopes))*20*time.Microsecond)
			return nil
		})
		manager := dlq.NewManager(priced{filled(t, count)}, sender, dlq.Config{})
		_, ids := letters(0)
		page := dlq.Query{Order: dlq.OldestFirst, Limit: dlq.MaxLimit}
		for {
			listed, err := manager.List(t.Context(), page)
			require.NoError(t, err)
			for i := range listed.Entries {
				ids = append(ids, listed.Entries[i].ID)
			}
			if page.Cursor = listed.Next; page.Cursor == "" {
				break
			}
		}
		begin := time.Now()
		for _, id := range ids {
			_, err := manager.Requeue(t.Context(), id)
			require.NoError(t, err)
		}
		single := time.Since(begin)

		manager = dlq.NewManager(priced{filled(t, count)}, sender, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		begin = time.Now()
		<-time.After(time.Hour)
		job = progress(t, manager, job.ID)
		require.Equal(t, count, job.Requeued)
		bulk := job.FinishedAt.Sub(begin)
		t.Logf("%d entries: one by one %s, by a job %s", count, single, bulk)
		require.Greater(t, single, 20*bulk)
	})
}
