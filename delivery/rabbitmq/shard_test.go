package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
)

// Messages wait by these numbers, so they must never change.
func TestShardOfIsStable(t *testing.T) {
	for recipient, want := range map[string][3]int{
		"":                 {0, 1, 38},
		"+966500000001":    {1, 1, 7},
		"+966500000002":    {1, 5, 47},
		"user@example.com": {0, 1, 62},
		"بريد":             {1, 5, 43},
		"\xff\x00":         {0, 6, 58},
	} {
		assert.Equal(t, want, [3]int{ShardOf(recipient, 2), ShardOf(recipient, 7), ShardOf(recipient, maxShards)}, recipient)
		for _, shards := range []int{-1, 0, 1} {
			assert.Zero(t, ShardOf(recipient, shards))
		}
	}
}

// Recipients that follow each other, as telephone numbers do, spread evenly.
func TestShardOfSpreads(t *testing.T) {
	const recipients = 64_000
	for _, shards := range []int{2, 3, 10, 16, maxShards} {
		for _, step := range []int{1, 2, 10, 16, 100} {
			counts := make([]int, shards)
			for i := range recipients {
				counts[ShardOf(fmt.Sprintf("+96650%07d", i*step), shards)]++
			}
			mean := recipients / shards
			assert.Greater(t, slices.Min(counts), mean*8/10, "%d shards, step %d", shards, step)
			assert.Less(t, slices.Max(counts), mean*12/10, "%d shards, step %d", shards, step)
		}
	}
}

func BenchmarkShardOf(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ShardOf("+966500000001", 8)
	}
}

func TestShardedTopology(t *testing.T) {
	plain := Quorum("orders", Version{})
	before := plain.String()
	topology := plain.Sharded(3)
	require.NoError(t, topology.validate())
	assert.Equal(t, before, plain.String(), "the original is left alone")
	text := topology.String()
	for _, line := range []string{
		"queue orders.high.2 x-dead-letter-exchange=orders.dlx x-dead-letter-routing-key=failed x-queue-type=quorum x-single-active-consumer=true\n",
		`binding orders -> orders.high.2 key="high.2"` + "\n",
		`binding orders.due -> orders.low.0 key="` + strings.Repeat("*.", 20) + `low.0"` + "\n",
		"queue orders.dlq x-queue-type=quorum\n",
	} {
		assert.Contains(t, text, line)
	}
	assert.NotContains(t, text, "queue orders.high x-")
	assert.NotContains(t, text, "orders.high.3")
	assert.Equal(t, Shard{Route: Route{"orders", "urgent.1"}, Address: "urgent.1", Queue: "orders.urgent.1"}, topology.Levels[0].Shards[1])
	assert.Len(t, topology.sources(), 12)
	assert.Equal(t, text, topology.Sharded(5).String(), "what is split stays as it is")
	for _, n := range []int{-1, 0, 1} {
		assert.Equal(t, before, plain.Sharded(n).String())
	}
	require.ErrorContains(t, plain.Sharded(65).validate(), "Levels[0] has 65 Shards, want at most 64")

	classic := Classic("orders", Version{}).Sharded(2)
	require.NoError(t, classic.validate())
	assert.Contains(t, classic.String(), "queue orders.high.1 x-dead-letter-exchange=orders.dlx x-dead-letter-routing-key=failed x-max-priority=10 x-single-active-consumer=true\n")
	sources := classic.sources()
	assert.Len(t, sources, 6)
	assert.Len(t, sources[0].levels, 2)

	bare := Topology{Queues: []Queue{{Name: "q"}}, Levels: []Level{{Queue: "q"}}}.Sharded(2)
	assert.Equal(t, "queue q.0 x-single-active-consumer=true\nqueue q.1 x-single-active-consumer=true\n", bare.String())
	long := Quorum(strings.Repeat("n", maxNameBytes), Version{}).Sharded(maxShards)
	require.NoError(t, long.validate())
	for _, queue := range long.Queues {
		assert.LessOrEqual(t, len(queue.Name), maxShortBytes)
	}
}

// Straight or by way of the ladder, a recipient's messages of a level come to
// the same queue.
func TestShardsAreReachedByEveryWay(t *testing.T) {
	topologies := []Topology{Quorum("q", Version{}).Sharded(5), Classic("q", Version{}).Sharded(5)}
	rapid.Check(t, func(t *rapid.T) {
		topology := rapid.SampledFrom(topologies).Draw(t, "topology")
		level := topology.Levels[rapid.IntRange(0, 3).Draw(t, "level")]
		shard := level.shardOf(rapid.String().Draw(t, "recipient"))
		queue, _ := route(topology, shard.Route.Exchange, shard.Route.Key)
		require.Equal(t, shard.Queue, queue)
		delay := time.Duration(rapid.Int64Range(0, int64(topology.longestDelay())).Draw(t, "delay"))
		at, _ := topology.delayed(delay, shard)
		exchange := at.Exchange
		for exchange != "q" && exchange != "q.due" {
			held, next := route(topology, exchange, at.Key)
			if exchange = next; held != "" {
				for _, q := range topology.Queues {
					if q.Name == held {
						exchange = q.Arguments["x-dead-letter-exchange"].(string)
					}
				}
			}
		}
		queue, _ = route(topology, exchange, at.Key)
		require.Equal(t, shard.Queue, queue)
	})
}

func forRecipient(recipient string, number int) delivery.Envelope {
	e := message(fmt.Sprint(recipient, "-", number))
	e.Recipient, e.Attempt = recipient, number
	return e
}

func TestShards(t *testing.T) {
	t.Parallel()
	for name, topology := range map[string]func(string, Version) Topology{"quorum": Quorum, "classic": Classic} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			c.Topology, c.Shards = topology, 3
			transport := open(t, c)
			ctx := context.Background()
			const recipients = 20
			var batch []delivery.Envelope
			perQueue := map[string]int{}
			for i := range recipients {
				e := forRecipient(fmt.Sprint("recipient ", i), 0)
				e.Priority = delivery.Priority(i%4 - 1)
				batch = append(batch, e)
				perQueue[transport.level(e.Priority).shardOf(e.Recipient).Queue]++
			}
			require.Greater(t, len(perQueue), 3)
			require.Nil(t, sendWithin(t, transport, time.Minute, batch...))
			require.Nil(t, transport.SendAfter(ctx, time.Second, batch))
			require.Eventually(t, func() bool {
				depths, err := transport.Depth(ctx)
				require.NoError(t, err)
				var sum int64
				for _, depth := range depths {
					sum += depth.Messages
				}
				return sum == 2*recipients
			}, time.Minute, 10*time.Millisecond)
			for queue, want := range perQueue {
				count, err := ask(ctx, transport, func(conn *connection) (int, error) { return conn.messagesIn(queue) })
				require.NoError(t, err)
				assert.Equal(t, 2*want, count, queue)
			}
			subscription := subscribe(t, transport, 100)
			_, pauses := subscription.(delivery.Pauser)
			assert.False(t, pauses, "others would overtake what is in hand")
			for _, in := range receive(t, subscription, 2*recipients) {
				e, err := in.Envelope()
				require.NoError(t, err)
				assert.Equal(t, e.Priority, in.Priority())
				require.NoError(t, in.Ack())
			}
			// Another process has nothing to do as long as this one is there.
			require.Nil(t, sendWithin(t, transport, time.Minute, batch...))
			receive(t, subscription, recipients)
			other := subscribe(t, open(t, c), 100)
			short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			defer cancel()
			_, err := other.Receive(short)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NoError(t, subscription.Close())
			receive(t, other, recipients)
		})
	}
}

// recipientOrder checks that each recipient's messages come in order, without a gap.
type recipientOrder struct {
	mu     sync.Mutex
	last   map[string]int
	first  int // seen for the first time
	again  int
	faults []string
}

func (o *recipientOrder) received(e *delivery.Envelope) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch number := e.Attempt; {
	case number == o.last[e.Recipient]+1:
		o.last[e.Recipient] = number
		o.first++
	case number > o.last[e.Recipient]:
		o.faults = append(o.faults, fmt.Sprintf("%s: %d after %d", e.Recipient, number, o.last[e.Recipient]))
	default:
		o.again++
	}
}

func (o *recipientOrder) seen() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first
}

// Three processes fetch, and one after the other dies. For each recipient, what
// comes for the first time comes in order, without a gap.
func TestShardsKeepOrderOverProcesses(t *testing.T) {
	t.Parallel()
	const recipients, each, batch, prefetch = 24, 60, 5, 40
	url := shared.AMQP(t)
	c := config(t, url)
	c.Shards = 6
	sender := open(t, c)
	order := recipientOrder{last: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	var networks []*network
	held := make([]int, 3) // by process; guarded by order.mu
	for process := range 3 {
		n := newNetwork(t, url)
		networks = append(networks, n)
		mine := c
		mine.URL = n.url
		subscription := subscribe(t, open(t, mine), prefetch*c.Shards)
		working.Go(func() {
			for {
				incomings, err := subscription.Receive(ctx)
				if err != nil {
					return
				}
				for _, in := range incomings {
					e, err := in.Envelope()
					if assert.NoError(t, err) {
						order.received(e)
					}
					order.mu.Lock()
					held[process]++
					order.mu.Unlock()
					in.Ack() //nolint:errcheck // stale ones come again
				}
			}
		})
	}
	var sending sync.WaitGroup
	for r := range recipients {
		sending.Go(func() {
			recipient := fmt.Sprint("recipient ", r)
			for number := 1; number <= each; number += batch {
				var envelopes []delivery.Envelope
				for k := range batch {
					envelopes = append(envelopes, forRecipient(recipient, number+k))
				}
				assert.Nil(t, sender.Send(context.Background(), envelopes))
			}
		})
	}
	const all = recipients * each
	for kill, at := range []int{all / 4, all / 2} {
		require.Eventually(t, func() bool { return order.seen() >= at }, time.Minute, time.Millisecond)
		networks[kill].close() // for good: it can't even say goodbye
	}
	sending.Wait()
	assert.Eventually(t, func() bool { return order.seen() == all }, time.Minute, 5*time.Millisecond)
	order.mu.Lock()
	defer order.mu.Unlock()
	t.Logf("first %d, again %d, by process %v", order.first, order.again, held)
	assert.Equal(t, all, order.first)
	assert.Empty(t, order.faults)
	assert.LessOrEqual(t, order.again, 2*prefetch*c.Shards)
	assert.Positive(t, held[2], "the last one has taken over")
}

// A process that ends in order hands its shard over with everything that it had in
// hand: the next one gets that first, and then what comes after it.
func TestShardsKeepOrderWhenHandedOver(t *testing.T) {
	t.Parallel()
	for name, topology := range map[string]func(string, Version) Topology{"quorum": Quorum, "classic": Classic} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n, prefetch, acked = 300, 40, 15
			c := config(t, shared.AMQP(t))
			c.Topology, c.Shards = withoutLadder(topology), 2
			transport := open(t, c)
			batch := make([]delivery.Envelope, n)
			for i := range batch {
				batch[i] = forRecipient("you", i+1)
			}
			require.Nil(t, sendWithin(t, transport, time.Minute, batch...))
			current := subscribe(t, transport, c.Shards*prefetch)
			for handed := 0; handed+prefetch < n; handed += acked {
				next := subscribe(t, transport, c.Shards*prefetch)
				for i, in := range receive(t, current, prefetch)[:acked] {
					e, err := in.Envelope()
					require.NoError(t, err)
					require.Equal(t, handed+i+1, e.Attempt, "after %d hand-overs", handed/acked)
					require.NoError(t, in.Ack())
				}
				require.NoError(t, current.Close())
				current = next
			}
		})
	}
}
