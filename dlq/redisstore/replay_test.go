package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

// ledger counts how often each message was sent, as which generation.
type ledger struct {
	mu    sync.Mutex
	times map[string]int
	after func(sent int)
}

func (l *ledger) Forward(_ context.Context, envelopes ...delivery.Envelope) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range envelopes {
		if envelopes[i].Generation != 1 {
			return errors.New("another generation")
		}
		l.times[envelopes[i].ID]++
	}
	if l.after != nil {
		l.after(len(l.times))
	}
	return nil
}

func fill(tb testing.TB, store dlq.Store, count int) {
	entries := make([]dlq.Entry, count)
	for i := range entries {
		entries[i] = entry(fmt.Sprintf("%06d", i), i)
	}
	require.NoError(tb, store.Put(tb.Context(), entries...))
}

// requireDone waits for the job's end.
func requireDone(tb testing.TB, manager *dlq.Manager, id string) dlq.Job {
	var job dlq.Job
	require.EventuallyWithT(tb, func(t *assert.CollectT) {
		var err error
		job, err = manager.Job(context.Background(), id)
		assert.NoError(t, err)
		assert.Equal(t, dlq.JobDone, job.Status)
	}, 2*patience, 5*time.Millisecond)
	return job
}

// TestReplaySharedByProcesses has three runners, two jobs over the same entries,
// and runners that come and go. Each entry is sent once.
func TestReplaySharedByProcesses(t *testing.T) {
	const count = 1500
	prefix := servers.Unique(t)
	sent := &ledger{times: make(map[string]int)}
	member := func() *dlq.Manager {
		store := open(t, connect(t, shared.RedisURL(t)), redisstore.Config{Prefix: prefix})
		return dlq.NewManager(store, sent, dlq.Config{BatchSize: 20})
	}
	client := connect(t, shared.RedisURL(t))
	fill(t, open(t, client, redisstore.Config{Prefix: prefix}), count)
	console := member()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() { assert.NoError(t, member().RunJobs(ctx)) })
	}
	var jobs []string
	for _, filter := range []dlq.Filter{{}, {Reason: "exhausted", Type: "order"}} {
		job, err := console.StartReplay(t.Context(), filter, dlq.ReplayConfig{})
		require.NoError(t, err)
		require.Equal(t, count, job.Total)
		jobs = append(jobs, job.ID)
	}
	running.Go(func() {
		for range 3 {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			assert.NoError(t, member().RunJobs(short)) //nolint:testifylint // not in the test's goroutine
			cancel()
		}
		assert.NoError(t, member().RunJobs(ctx))
	})
	total := 0
	for _, id := range jobs {
		total += requireDone(t, console, id).Requeued
	}
	stop()
	running.Wait()
	require.Equal(t, count, total)
	require.Len(t, sent.times, count)
	for id, times := range sent.times {
		require.Equal(t, 1, times, id)
	}
	requireAudit(t, client, prefix)
}

// TestReplayThroughAKilledRedis kills Redis twice while a job runs. An entry may
// be sent twice only where the answer to its removal was lost with the server,
// and never in another generation; none is left.
func TestReplayThroughAKilledRedis(t *testing.T) {
	const count = 600
	server := durable(t)
	store := open(t, connect(t, server.URL()), redisstore.Config{})
	fill(t, store, count)
	reached := make(chan int, count)
	sent := &ledger{times: make(map[string]int), after: func(n int) { reached <- n }}
	manager := dlq.NewManager(store, sent, dlq.Config{BatchSize: 10})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- manager.RunJobs(ctx) }()
	job, err := manager.StartReplay(t.Context(), dlq.Filter{}, dlq.ReplayConfig{})
	require.NoError(t, err)
	for _, at := range []int{200, 400} {
		for n := range reached {
			if n >= at {
				break
			}
		}
		require.NoError(t, server.Kill())
		require.NoError(t, server.Start(t.Context()))
	}
	job = requireDone(t, manager, job.ID)
	stop()
	require.NoError(t, <-ended)
	require.Equal(t, count, job.Requeued)
	require.Len(t, sent.times, count)
	for id, times := range sent.times {
		require.Equal(t, 1, times, id)
	}
	requireKept(t, store)
}

func BenchmarkReplay(b *testing.B) {
	const count = 10_000
	client := connect(b, shared.RedisURL(b))
	for name, replay := range map[string]func(manager *dlq.Manager){
		"Single": func(manager *dlq.Manager) {
			for i := range count {
				_, err := manager.Requeue(b.Context(), fmt.Sprintf("%06d", i))
				require.NoError(b, err)
			}
		},
		"Job": func(manager *dlq.Manager) {
			ctx, stop := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- manager.RunJobs(ctx) }()
			job, err := manager.StartReplay(b.Context(), dlq.Filter{}, dlq.ReplayConfig{})
			require.NoError(b, err)
			requireDone(b, manager, job.ID)
			stop()
			require.NoError(b, <-ended)
		},
	} {
		b.Run(name, func(b *testing.B) {
			store := open(b, client, redisstore.Config{})
			n := 0
			for b.Loop() {
				b.StopTimer()
				fill(b, store, count)
				manager := dlq.NewManager(store, &ledger{times: make(map[string]int)}, dlq.Config{})
				b.StartTimer()
				replay(manager)
				n += count
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
