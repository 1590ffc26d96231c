package redisstate

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/retry"
)

func TestOneTripsAllOpen(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 3, breaker.Config{})
	a, b, c := all[0], all[1], all[2]
	assert.Equal(t, View{}, a.view(t))
	syncAll(t, all...)
	b.call(t, breaker.Success) // it sees nothing wrong
	a.call(t, breaker.Failure)
	syncAll(t, a, b, c)
	requireState(t, breaker.Open, all...)
	assert.WithinDuration(t, a.Status().Until, b.Status().Until, time.Minute)
	view := c.view(t)
	assert.WithinDuration(t, a.Status().Until, view.Until, time.Minute)
	assert.WithinDuration(t, time.Now(), view.At, patience)
	view.Until, view.At = time.Time{}, time.Time{}
	assert.Equal(t, View{Known: true, State: breaker.Open, By: "a"}, view)
	syncAll(t, all...)
	requireState(t, breaker.Open, all...)
}

// Whoever trips while the others are open joins them, so that all are open
// until the same time.
func TestTwoTripAtOnce(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	config := breaker.Config{Name: servers.Unique(t), SampleSize: 1, OpenFor: time.Hour}
	a := join(t, client, "a", config)
	config.OpenFor = 2 * time.Hour
	b := join(t, client, "b", config)
	syncAll(t, a, b)
	a.call(t, breaker.Failure)
	b.call(t, breaker.Failure)
	require.Equal(t, 120, minutes(b))
	syncAll(t, a, b, a)
	assert.Equal(t, 60, minutes(a))
	assert.Equal(t, 60, minutes(b))
	assert.Equal(t, "a", a.view(t).By)
}

// A probe may fail while Redis, which heard a little later of the open state,
// still has it open. It is a new one all the same.
func TestProbeFailsBeforeTheRecordEnds(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	a.call(t, breaker.Failure)
	syncAll(t, a, b)
	a.Trip(0)
	b.Trip(0)
	reaches(t, breaker.HalfOpen, a, b)
	a.wants(t)
	syncAll(t, a)
	a.call(t, breaker.Failure)
	syncAll(t, a, b)
	requireState(t, breaker.Open, a, b)
}

func TestJoiningLate(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	all := instances(t, client, 1, breaker.Config{OpenFor: time.Hour})
	a := all[0]
	config := breaker.Config{Name: a.Name(), SampleSize: 1, OpenFor: time.Minute}
	a.call(t, breaker.Failure)
	syncAll(t, a)

	b := join(t, client, "b", config)
	syncAll(t, b)
	requireState(t, breaker.Open, b)
	assert.Equal(t, 60, minutes(b))

	halfOpen(t, a)
	c := join(t, client, "c", config)
	syncAll(t, c)
	reaches(t, breaker.HalfOpen, c) // not at full speed
	assert.Zero(t, c.refuses(t).RetryIn)
	assert.Equal(t, breaker.HalfOpen, c.view(t).State)

	a.wants(t)
	syncAll(t, a)
	a.call(t, breaker.Success)
	syncAll(t, a, b, c)
	requireState(t, breaker.Closed, a, b, c)
	d := join(t, client, "d", config)
	syncAll(t, d)
	requireState(t, breaker.Closed, d)
}

// The fleet sends Config.Probes probes in all, and goes by their outcome.
func TestProbesAreSharedOut(t *testing.T) {
	const probes = 2
	all := instances(t, connect(t, shared.RedisURL(t)), 5, breaker.Config{Probes: probes, OpenFor: 100 * time.Millisecond})
	run(t, all...)
	permits := make(chan breaker.Permit, 100)
	ctx, cancel := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer cancel()
	var calling atomic.Bool
	for _, i := range all {
		callers.Go(func() {
			for i.Wait(ctx) == nil {
				if !calling.Load() {
					retry.Wait(ctx.Done(), time.Millisecond)
					continue
				}
				if permit, err := i.Allow(); err == nil {
					permits <- permit
				}
			}
		})
	}
	// Everybody knows that Redis is there.
	for _, i := range all {
		require.Eventually(t, func() bool {
			i.fleet.syncing <- struct{}{}
			defer func() { <-i.fleet.syncing }()
			return i.fleet.members[0].lost
		}, patience, time.Millisecond)
	}
	all[0].call(t, breaker.Failure)
	reaches(t, breaker.HalfOpen, all...)
	for round := range 3 {
		calling.Store(true)
		first, second := <-permits, <-permits
		retry.Wait(ctx.Done(), 10*all[0].fleet.config.Every)
		require.Empty(t, permits, "round %d", round)
		calling.Store(false)
		if round < 2 {
			before := all[0].record(t).event
			first.Done(breaker.Success)
			second.Done(breaker.Failure)
			for _, i := range all {
				require.Eventually(t, func() bool {
					r := i.record(t)
					return r.event != before && r.left <= 0 && i.State() == breaker.HalfOpen // again
				}, patience, time.Millisecond)
			}
			continue
		}
		first.Done(breaker.Success)
		second.Done(breaker.Answered)
		reaches(t, breaker.Closed, all...)
	}
	assert.Equal(t, breaker.Closed, all[0].view(t).State)
}

// An instance that is gone holds up the others no longer than its lease.
func TestLeaseOfAnInstanceThatIsGone(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	halfOpen(t, all...)
	a.wants(t)
	b.wants(t)
	syncAll(t, a, b)
	require.Equal(t, "a", b.view(t).Prober)
	b.wants(t)
	probe, err := a.Allow()
	require.NoError(t, err)
	syncAll(t, b)
	require.Equal(t, "a", b.view(t).Prober)
	b.endLease(t)
	syncAll(t, b)
	require.Equal(t, "b", b.view(t).Prober)
	b.call(t, breaker.Failure)
	syncAll(t, b)
	probe.Done(breaker.Success) // it comes back, and what it found out is outdated
	requireState(t, breaker.Closed, a)
	syncAll(t, a, b)
	requireState(t, breaker.Open, a, b)
}

// The probe of one that was late counts if nothing has happened since.
func TestFirstOutcomeCounts(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	halfOpen(t, all...)
	a.wants(t)
	syncAll(t, a)
	probe, err := a.Allow()
	require.NoError(t, err)
	b.wants(t)
	syncAll(t, b)
	require.Equal(t, "a", b.view(t).Prober)
	b.endLease(t)
	syncAll(t, b)
	require.Equal(t, "b", b.view(t).Prober)
	probing, err := b.Allow()
	require.NoError(t, err)
	probe.Done(breaker.Success)
	syncAll(t, a, b)
	requireState(t, breaker.Closed, a, b)
	probing.Done(breaker.Failure)
	syncAll(t, b, a)
	requireState(t, breaker.Closed, a, b)
}

// A lease that nobody uses goes to one that asks, but is kept as long as nobody
// does.
func TestUnusedLease(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	halfOpen(t, all...)
	syncAll(t, a, b)
	require.Empty(t, a.view(t).Prober, "nobody wants to probe")
	a.wants(t)
	syncAll(t, a)
	m := a.fleet.members[0]
	m.since = time.Now().Add(-10 * time.Hour)
	syncAll(t, a, b, a, b)
	require.Equal(t, "a", a.view(t).Prober)
	b.wants(t)
	syncAll(t, b, a, a)
	a.wants(t)
	syncAll(t, b)
	require.Equal(t, "b", a.view(t).Prober)
	require.Equal(t, 1, m.unused)
	b.call(t, breaker.Success)
	syncAll(t, b, a)
	requireState(t, breaker.Closed, a, b)
	require.Zero(t, m.unused)
}

// A probe that begins just as the lease is to be given back keeps it.
func TestLeaseInUseIsKept(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	halfOpen(t, all...)
	a.wants(t)
	syncAll(t, a)
	before := a.Status()
	probe, err := a.Allow()
	require.NoError(t, err)
	m := a.fleet.members[0]
	m.since = time.Now().Add(-10 * time.Hour)
	b.wants(t)
	syncAll(t, b, a, b, a, b)
	require.Equal(t, "a", a.view(t).Prober)
	require.True(t, m.asked)
	c := command{}
	m.probe(a.fleet, &c, before, time.Now())
	require.Equal(t, opLease, c.op)
	probe.Done(breaker.Success)
	syncAll(t, a, b)
	requireState(t, breaker.Closed, a, b)
}

func TestRunGivesTheLeaseBack(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 2, breaker.Config{})
	a, b := all[0], all[1]
	halfOpen(t, all...)
	a.wants(t)
	stop := run(t, a)
	require.Eventually(t, func() bool { return b.view(t).Prober == "a" }, patience, time.Millisecond)
	require.ErrorIs(t, a.fleet.Run(t.Context()), ErrRunning)
	stop()
	require.Empty(t, b.view(t).Prober)
	a.call(t, breaker.Success) // and probes are its own
	requireState(t, breaker.Closed, a)
}

// Run may be asked to end just when Redis has granted a lease and the answer is
// on its way.
func TestRunEndsWithTheAnswerOnItsWay(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	late := &lateAnswer{reached: make(chan struct{}), goOn: make(chan struct{})}
	client.AddHook(late)
	all := instances(t, client, 1, breaker.Config{})
	a := all[0]
	halfOpen(t, a)
	a.wants(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	late.armed.Store(true)
	go func() { ended <- a.fleet.Run(ctx) }()
	<-late.reached
	cancel()
	close(late.goOn)
	require.NoError(t, <-ended)
	require.Empty(t, a.view(t).Prober)
}

// lateAnswer holds the first answer back after it was armed.
type lateAnswer struct {
	armed         atomic.Bool
	reached, goOn chan struct{}
}

func (*lateAnswer) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*lateAnswer) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (l *lateAnswer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		err := next(ctx, commands)
		if name := commands[0].Name(); (name == "eval" || name == "evalsha") && l.armed.CompareAndSwap(true, false) {
			close(l.reached)
			<-l.goOn
		}
		return err
	}
}

func TestManyBreakersOnePipeline(t *testing.T) {
	const n = 300
	client := connect(t, shared.RedisURL(t))
	counted := &pipelines{}
	client.AddHook(counted)
	prefix := servers.Unique(t)
	fleets := [2]*Fleet{New(client, Config{Prefix: prefix, Timeout: patience}), New(client, Config{Prefix: prefix, Timeout: patience})}
	var breakers [2][]*breaker.Breaker
	for i, fleet := range fleets {
		for k := range n {
			breakers[i] = append(breakers[i], breaker.New(breaker.Config{Name: strconv.Itoa(k), SampleSize: 1}))
		}
		require.NoError(t, fleet.Share(breakers[i]...))
	}
	require.NoError(t, client.ScriptFlush(t.Context()).Err())
	require.NoError(t, fleets[0].Sync(t.Context()))
	require.Equal(t, []int{n, n}, counted.take(), "once more for the script")
	for k := 0; k < n; k += 2 {
		breakers[0][k].ForceClosed(0)
		breakers[0][k].Release()
		permit, err := breakers[0][k].Allow()
		require.NoError(t, err)
		permit.Done(breaker.Failure)
	}
	require.NoError(t, fleets[0].Sync(t.Context()))
	require.NoError(t, fleets[1].Sync(t.Context()))
	require.Equal(t, []int{n, n}, counted.take())
	for k, b := range breakers[1] {
		want := breaker.Closed
		if k%2 == 0 {
			want = breaker.Open
		}
		require.Equal(t, want, b.State(), k)
	}
	for _, all := range breakers {
		for _, b := range all {
			b.ForceClosed(0)
		}
	}
}

// pipelines is how many commands each pipeline had.
type pipelines struct {
	mu    sync.Mutex
	sizes []int
}

func (*pipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		if name := commands[0].Name(); name == "eval" || name == "evalsha" {
			p.mu.Lock()
			p.sizes = append(p.sizes, len(commands))
			p.mu.Unlock()
		}
		return next(ctx, commands)
	}
}

func (p *pipelines) take() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	sizes := p.sizes
	p.sizes = nil
	return sizes
}

// Sharing costs a call nothing: what Allow allocates is gobreaker's.
func TestAllowStaysLocal(t *testing.T) {
	all := instances(t, connect(t, shared.RedisURL(t)), 1, breaker.Config{SampleSize: 10})
	alone := breaker.New(breaker.Config{})
	use := func(b *breaker.Breaker) float64 {
		return testing.AllocsPerRun(1000, func() {
			permit, _ := b.Allow()
			permit.Done(breaker.Success)
		})
	}
	syncAll(t, all...)
	assert.Equal(t, use(alone), use(all[0].Breaker)) //nolint:testifylint // whole numbers
}

func BenchmarkSync(b *testing.B) {
	fleet := New(connect(b, shared.RedisURL(b)), Config{Prefix: servers.Unique(b)})
	for k := range 100 {
		require.NoError(b, fleet.Share(breaker.New(breaker.Config{Name: strconv.Itoa(k)})))
	}
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, fleet.Sync(b.Context()))
	}
}
