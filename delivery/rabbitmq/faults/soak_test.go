package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
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
	// soakPace bounds the soak's traffic to some 400 messages a second.
	soakPace = 100 * time.Millisecond
	soakRate = callers * batchSize * int(time.Second/soakPace)
	// settleIn is after how long memory and goroutines are taken as a measure.
	settleIn = time.Minute
	// steadyPool has the client open all of its connections from the beginning,
	// 64 KiB of buffers each, so that those that faults make it open are no growth.
	steadyPool = "?pool_size=10&min_idle_conns=10"
	// growth is how much more of both there may be at the end.
	growth = 1.10
)

// tally keeps the books of numbered messages in as much memory from beginning
// to end.
type tally struct {
	mu      sync.Mutex
	next    int
	sent    []bool
	effects []uint8

	published, done, pending, duplicates int
}

// number takes the number out of an ID.
func (y *tally) number(id string) int {
	n, err := strconv.Atoi(id[strings.LastIndexByte(id, '-')+1:])
	if err != nil || n >= len(y.sent) {
		return 0
	}
	return n
}

func (y *tally) Sent(id string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := y.number(id)
	if y.sent[n] {
		return
	}
	y.sent[n] = true
	y.published++
	if y.effects[n] == 0 {
		y.pending++
	}
}

func (y *tally) Effect(id string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := y.number(id)
	y.done++
	if y.effects[n] > 0 {
		y.duplicates++
		return
	}
	y.effects[n] = 1
	if y.sent[n] {
		y.pending--
	}
}

// messages makes new ones, or none when there is no more room.
func (y *tally) messages(n int) []delivery.Message {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.next+n > len(y.sent) {
		return nil
	}
	made := make([]delivery.Message, n)
	for i := range made {
		made[i] = delivery.Message{
			ID: fmt.Sprintf("soak-%d", y.next), Recipient: "you", Body: make([]byte, 200), Priority: delivery.Priorities()[i%4],
		}
		y.next++
	}
	return made
}

func (y *tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return fmt.Sprintf("published %d  effects %d  pending %d  duplicates %d", y.published, y.done, y.pending, y.duplicates)
}

func (y *tally) drained() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.pending == 0
}

// soak is a long run with random faults.
type soak struct {
	*pipeline
	tally   *tally
	relay   *relay
	redis   *servers.Redis
	failing atomic.Bool
	fault   atomic.Value // the name of the last one
	begin   time.Time
}

func TestSoak(t *testing.T) {
	if asked.soak <= 0 {
		return
	}
	seed := asked.seed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	fmt.Printf("soak: %s, seed %d\n", asked.soak, seed)
	r := newRig(t, row{fault: "soak"})
	defer func() {
		if r.Failed() {
			r.giveUp()
		}
		r.cleanUp()
		r.noLeaks()
	}()
	s := &soak{redis: r.ownRedis(), begin: time.Now()}
	room := int(asked.soak.Seconds()+300) * soakRate
	s.tally = &tally{sent: make([]bool, room), effects: make([]uint8, room), next: 1}
	r.books = s.tally
	s.relay = r.relay(r.loopback(), r.broker.Addr())
	s.fault.Store("none")
	s.pipeline = r.pipeline(setup{
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
	fmt.Printf("soak: seed %d, %s, verdict %s\n", seed, s.tally, map[bool]string{false: "ok", true: "BAD"}[r.Failed()])
}

// run has a fault every now and then, and measures at the beginning and the end.
func (s *soak) run(random *rand.Rand) {
	lines, stop := context.WithCancel(s.ctx)
	var telling sync.WaitGroup
	telling.Go(func() { s.tell(lines) })
	s.later(telling.Wait)
	s.later(stop)

	settle := min(settleIn, asked.soak/4)
	s.flowsUntil(s.begin.Add(settle), random)
	heap, goroutines := s.measure()
	s.flowsUntil(s.begin.Add(asked.soak), random)
	heapNow, goroutinesNow := s.measure()
	fmt.Printf("soak: heap %.2f MB after %s, %.2f MB at the end; goroutines %d, %d\n",
		heap, settle, heapNow, goroutines, goroutinesNow)
	assert.LessOrEqual(s, heapNow, heap*growth, "the heap has grown")
	assert.LessOrEqual(s, float64(goroutinesNow), float64(goroutines)*growth, "there are more goroutines")
	assert.True(s, s.tally.drained(), "lost: %s", s.tally)
	assert.Empty(s, s.deadLetters())
}

// flowsUntil publishes, with faults, until then, and drains.
func (s *soak) flowsUntil(end time.Time, random *rand.Rand) {
	s.Helper()
	stopping := make(chan struct{})
	for range callers {
		s.publishing.Go(func() {
			tick := time.NewTicker(soakPace)
			defer tick.Stop()
			for {
				select {
				case <-stopping:
					return
				case <-s.ctx.Done():
					return
				case <-tick.C:
					s.publish(s.tally.messages(batchSize)...)
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
	s.within(3*time.Minute, s.tally.drained, "published messages have no end: "+s.tally.String())
	s.fault.Store("none")
}

// measure is the heap in MB and the goroutines, when nothing happens.
func (s *soak) measure() (heap float64, goroutines int) {
	s.wait(5 * time.Second) // acks and connections settle
	runtime.GC()
	runtime.GC() // what was pooled goes with the second
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return float64(memory.HeapAlloc) / 1e6, own()
}

func (s *soak) tell(ctx context.Context) {
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
				s.fault.Load(), s.tally, float64(memory.HeapAlloc)/1e6, own())
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
		{"scripts forgotten", func() { s.admin(s.redis.Addr(), "SCRIPT", "FLUSH") }},
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
