package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/retry"
)

const (
	faultEvery = 20 * time.Second
	lineEvery  = 10 * time.Second
	// soakInterval bounds the soak's traffic to some 400 messages a second.
	soakInterval = 100 * time.Millisecond
	soakRate     = callers * batchSize * int(time.Second/soakInterval)
	// warmUp is after how long memory and goroutines are measured, to compare with.
	warmUp = time.Minute
	// steadyPool has the Redis client open all of its connections at the beginning,
	// with buffers of 64 KiB each, so that those opened after faults are no growth. Its
	// connections for pipelines, which would have 256 KiB each, are opened when more
	// pipelines run at once than before, so they get small buffers.
	steadyPool = "?pool_size=10&min_idle_conns=10&pipeline_pool_size=10" +
		"&pipeline_read_buffer_size=4096&pipeline_write_buffer_size=4096"
	// soakWindow is that of the metrics, and well below warmUp: a Collector allocates
	// its histograms, 40 KB for each sixth of the window, when the first values come.
	soakWindow = 15 * time.Second
	// growth is the factor by which both may be higher at the end.
	growth = 1.10
)

// numberedLedger is a ledger of numbered messages. Its memory does not grow, because
// a soak measures whether the pipeline's does.
type numberedLedger struct {
	mu      sync.Mutex
	next    int
	sent    []bool
	effects []uint8

	published, done, pending, duplicates int
}

// index is the number in an ID.
func (l *numberedLedger) index(id string) int {
	n, err := strconv.Atoi(id[strings.LastIndexByte(id, '-')+1:])
	if err != nil || n >= len(l.sent) {
		return 0
	}
	return n
}

func (l *numberedLedger) Sent(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.index(id)
	if l.sent[n] {
		return
	}
	l.sent[n] = true
	l.published++
	if l.effects[n] == 0 {
		l.pending++
	}
}

func (l *numberedLedger) Effect(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.index(id)
	l.done++
	if l.effects[n] > 0 {
		l.duplicates++
		return
	}
	l.effects[n] = 1
	if l.sent[n] {
		l.pending--
	}
}

// messages makes new messages, or none when all numbers are used.
func (l *numberedLedger) messages(n int) []delivery.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next+n > len(l.sent) {
		return nil
	}
	made := make([]delivery.Message, n)
	for i := range made {
		made[i] = delivery.Message{
			ID: fmt.Sprintf("soak-%d", l.next), Recipient: "you", Body: make([]byte, 200), Priority: delivery.Priorities()[i%4],
		}
		l.next++
	}
	return made
}

func (l *numberedLedger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("published %d  effects %d  pending %d  duplicates %d", l.published, l.done, l.pending, l.duplicates)
}

func (l *numberedLedger) drained() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending == 0
}

// soak is a long run with random faults.
type soak struct {
	*pipeline
	numbers *numberedLedger
	relay   *relay
	redis   *servers.Redis
	failing atomic.Bool
	fault   atomic.Value // the name of the last one
	begin   time.Time
}

func TestSoak(t *testing.T) {
	if flags.soak <= 0 {
		return
	}
	seed := flags.seed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	fmt.Printf("soak: %s, seed %d\n", flags.soak, seed)
	r := newRowTest(t, row{fault: "soak"})
	defer func() {
		if r.Failed() {
			r.cancel()
		}
		r.cleanUp()
		r.assertNoLeaks()
	}()
	s := &soak{redis: r.ownRedis(), begin: time.Now()}
	room := int(flags.soak.Seconds()+300) * soakRate
	s.numbers = &numberedLedger{sent: make([]bool, room), effects: make([]uint8, room), next: 1}
	r.target = s.numbers
	s.relay = r.relay(r.listenLocally(), r.broker.Addr())
	s.fault.Store("none")
	s.pipeline = r.pipeline(pipelineConfig{
		lean: true, redis: s.redis.URL() + steadyPool, amqp: "amqp://guest:guest@" + s.relay.listener.Addr().String() + "/",
		handler: func(ctx context.Context, _ delivery.Message) error {
			if attempt, _ := delivery.AttemptFrom(ctx); s.failing.Load() && attempt.Number == 1 {
				return errPoison
			}
			return nil
		},
		consumer: func(c *delivery.ConsumerConfig) {
			c.Retry = retry.Exponential{Base: time.Second, Max: 5 * time.Second, MaxRetries: 20}
		},
		transport: func(c *rabbitmq.Config) { c.Heartbeat, c.WriteTimeout = 2*time.Second, 2*time.Second },
	})
	s.run(rand.New(rand.NewPCG(seed, seed)))
	fmt.Printf("soak: seed %d, %s, verdict %s\n", seed, s.numbers, map[bool]string{false: "ok", true: "BAD"}[r.Failed()])
}

// run injects faults, and measures at the beginning and at the end.
func (s *soak) run(random *rand.Rand) {
	lines, stop := context.WithCancel(s.ctx)
	var printing sync.WaitGroup
	printing.Go(func() { s.printLines(lines) })
	s.atEnd(printing.Wait)
	s.atEnd(stop)

	settle := min(warmUp, flags.soak/4)
	s.runUntil(s.begin.Add(settle), random)
	heap, goroutines := s.measure("warm")
	s.runUntil(s.begin.Add(flags.soak), random)
	heapNow, goroutinesNow := s.measure("end")
	fmt.Printf("soak: heap %.2f MB after %s, %.2f MB at the end; goroutines %d, %d\n",
		heap, settle, heapNow, goroutines, goroutinesNow)
	assert.LessOrEqual(s, heapNow, heap*growth, "the heap has grown")
	assert.LessOrEqual(s, float64(goroutinesNow), float64(goroutines)*growth, "there are more goroutines")
	assert.True(s, s.numbers.drained(), "lost: %s", s.numbers)
	assert.Empty(s, s.deadLetters())
}

// runUntil publishes, with faults, until that time, and drains.
func (s *soak) runUntil(end time.Time, random *rand.Rand) {
	s.Helper()
	stopping := make(chan struct{})
	for range callers {
		s.publishing.Go(func() {
			tick := time.NewTicker(soakInterval)
			defer tick.Stop()
			for {
				select {
				case <-stopping:
					return
				case <-s.ctx.Done():
					return
				case <-tick.C:
					s.publish(s.numbers.messages(batchSize)...)
				}
			}
		})
	}
	faults := s.faults()
	for time.Until(end) > 0 {
		next := time.Now().Add(min(faultEvery, time.Until(end)))
		if time.Until(end) > faultEvery/2 {
			fault := faults[random.IntN(len(faults))]
			s.fault.Store(fault.name)
			fault.do()
		}
		s.wait(max(0, time.Until(next)))
	}
	close(stopping)
	s.publishing.Wait()
	s.within(3*time.Minute, s.numbers.drained, "published messages have no end: "+s.numbers.String())
	s.fault.Store("none")
}

// measure is the heap in MB and the number of goroutines, while nothing happens. Its
// profile is written if that was asked for.
func (s *soak) measure(moment string) (heap float64, goroutines int) {
	s.wait(5 * time.Second) // until acks are sent and connections closed
	runtime.GC()
	runtime.GC() // the second frees what was pooled
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	if flags.profiles != "" {
		s.writeProfile(filepath.Join(flags.profiles, "heap-"+moment+".pprof"))
	}
	return float64(memory.HeapAlloc) / 1e6, ownGoroutines()
}

func (s *soak) writeProfile(path string) {
	file, err := os.Create(path)
	require.NoError(s, err)
	require.NoError(s, pprof.Lookup("heap").WriteTo(file, 0))
	require.NoError(s, file.Close())
}

func (s *soak) printLines(ctx context.Context) {
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			var memory runtime.MemStats
			runtime.ReadMemStats(&memory)
			fmt.Printf("soak: %6s  %-22s  %s  heap %.1f MB  goroutines %d\n", time.Since(s.begin).Round(time.Second),
				s.fault.Load(), s.numbers, float64(memory.HeapAlloc)/1e6, ownGoroutines())
		}
	}
}

type soakFault struct {
	name string
	do   func()
}

// faults are what may happen; each is over when it returns.
func (s *soak) faults() []soakFault {
	during := func(d time.Duration, begin, end func() error) func() {
		return func() {
			require.NoError(s, begin())
			s.wait(d)
			require.NoError(s, end())
		}
	}
	startBroker := func() error { return s.broker.Start(s.ctx) }
	startRedis := func() error { return s.redis.Start(s.ctx) }
	faults := []soakFault{
		{"broker killed", during(time.Second, s.broker.Kill, startBroker)},
		{"broker restarted", during(time.Second, s.broker.Stop, startBroker)},
		{"broker hangs", during(5*time.Second, s.broker.Pause, s.broker.Resume)},
		{"connections closed", func() { s.ctl("close_all_connections", "fault") }},
		{"connections cut", s.relay.cut},
		{"network stalls", func() {
			resume := s.relay.stall()
			s.wait(5 * time.Second)
			resume()
		}},
		{"memory alarm", during(5*time.Second,
			func() error { return s.broker.SetAlarm(s.ctx, servers.MemoryAlarm) },
			func() error { return s.broker.ClearAlarm(s.ctx, servers.MemoryAlarm) })},
		{"Redis killed", during(2*time.Second, s.redis.Kill, startRedis)},
		{"Redis hangs", during(4*time.Second, s.redis.Pause, s.redis.Resume)},
		{"scripts forgotten", func() { s.redisCommand(s.redis.Addr(), "SCRIPT", "FLUSH") }},
		{"handler fails", func() {
			s.failing.Store(true)
			s.wait(2 * time.Second)
			s.failing.Store(false)
		}},
	}
	if why := needSocketKiller(); why == "" {
		faults = append(faults, soakFault{"connections reset", func() {
			require.NoError(s, killSockets(s.broker.Addr()))
		}})
	}
	return faults
}
