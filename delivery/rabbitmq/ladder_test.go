package rabbitmq

import (
	"context"
	"log/slog"
	"math/bits"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func TestDelaysPassInTheBroker(t *testing.T) {
	t.Parallel()
	transport := open(t, config(t, shared.AMQP(t)))
	subscription := subscribe(t, transport, 100)
	delays := map[string]time.Duration{
		"0.2": 200 * time.Millisecond, "1": time.Second, "3.4": 3400 * time.Millisecond, "5": 5 * time.Second,
	}
	sent := make(map[string]time.Time)
	for id, delay := range delays {
		sent[id] = time.Now()
		require.Nil(t, transport.SendAfter(context.Background(), delay, []delivery.Envelope{message(id)}))
	}
	for range delays {
		in := receive(t, subscription, 1)[0]
		e, err := in.Envelope()
		require.NoError(t, err)
		took := time.Since(sent[e.ID])
		t.Log(e.ID, took)
		assert.GreaterOrEqual(t, took, delays[e.ID])
		assert.Less(t, took, delays[e.ID]+time.Minute, "held up by something")
		assert.Equal(t, message(e.ID), *e)
		require.NoError(t, in.Ack())
	}
}

func TestDelaysHaveALimit(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	c.Topology = withLadder(Quorum, c.Name+".ladder.")
	transport := open(t, c)
	require.Nil(t, transport.SendAfter(context.Background(), 1000*time.Hour, []delivery.Envelope{message("1")}))
	raw(t, c.URL, func(channel *amqp.Channel) {
		d, ok, err := channel.Get(c.Name+".ladder.delay.19", true)
		require.NoError(t, err)
		require.True(t, ok)
		assert.Equal(t, strings.Repeat("1.", 20)+c.Name+".normal", d.RoutingKey)
	})
	c.Name = servers.Unique(t)
	c.Topology = func(name string, server Version) Topology {
		topology := Quorum(name, server)
		topology.Delays, topology.DeadLetter = nil, Route{}
		return topology
	}
	bare := open(t, c)
	require.ErrorIs(t, bare.SendAfter(context.Background(), time.Minute, []delivery.Envelope{message("1")})[0], delivery.ErrUnsupported)
	assert.Nil(t, bare.SendAfter(context.Background(), 990*time.Millisecond, []delivery.Envelope{message("2")}))
	require.ErrorIs(t, bare.DeadLetter(context.Background(), delivery.DeadLetter{}), delivery.ErrUnsupported)
}

// route is what topic exchanges do with a routing key: which queue of the ladder
// takes it, and which exchange is next.
func route(topology Topology, exchange, key string) (queue, next string) {
	for _, b := range topology.Bindings {
		if b.Source != exchange || !matches(strings.Split(b.Key, "."), strings.Split(key, ".")) {
			continue
		}
		if b.ToExchange {
			next = b.Destination
		} else {
			queue = b.Destination
		}
	}
	return queue, next
}

func matches(pattern, words []string) bool {
	switch {
	case len(pattern) == 0:
		return len(words) == 0
	case pattern[0] == "#":
		return true // ours end with it
	case len(words) == 0 || pattern[0] != "*" && pattern[0] != words[0]:
		return false
	}
	return matches(pattern[1:], words[1:])
}

func TestLadderHoldsForTheWholeDelay(t *testing.T) {
	topology := Quorum("q", Version{})
	rapid.Check(t, func(t *rapid.T) {
		level := topology.Levels[rapid.IntRange(0, 3).Draw(t, "level")]
		delay := time.Duration(rapid.Int64Range(0, int64(topology.longestDelay())).Draw(t, "delay"))
		at, inLadder := topology.delayed(delay, &level.shards()[0])
		require.Equal(t, delay+ladderSlack >= time.Second, inLadder)
		var held time.Duration
		exchange, hops := at.Exchange, 0
		for exchange != "q" && !strings.HasSuffix(exchange, ".due") {
			hops++
			queue, next := route(topology, exchange, at.Key)
			require.NotEqual(t, queue == "", next == "", "held here or passed on, never both")
			if queue == "" {
				exchange = next
				continue
			}
			for _, q := range topology.Queues {
				if q.Name == queue {
					held += time.Duration(q.Arguments["x-message-ttl"].(int64)) * time.Millisecond
					exchange = q.Arguments["x-dead-letter-exchange"].(string)
				}
			}
		}
		queue, _ := route(topology, exchange, at.Key)
		require.Equal(t, level.Queue, queue)
		require.Equal(t, min(delay+ladderSlack, topology.longestDelay()).Truncate(time.Second), held)
		require.Equal(t, bits.Len64(uint64(held/time.Second)), hops, "it begins at the highest digit")
	})
}

func TestLadderWordTellsNamesApart(t *testing.T) {
	assert.Equal(t, "orders", ladderWord("orders"))
	assert.Equal(t, "orders%2Eeu", ladderWord("orders.eu"))
	names := rapid.StringOf(rapid.SampledFrom([]rune("a.*#%2E")))
	rapid.Check(t, func(t *rapid.T) {
		one, other := names.Draw(t, "one"), names.Draw(t, "other")
		require.Equal(t, one == other, ladderWord(one) == ladderWord(other))
		require.NotContains(t, ladderWord(one), ".")
		require.NotContains(t, []string{"*", "#"}, ladderWord(one), "it would match every name")
	})
}

// Names that share the ladder get what is theirs, whatever they look like.
func TestNamesShareTheLadder(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	ctx := context.Background()
	names := []string{c.Name, c.Name + ".normal", c.Name + ".#", "#." + c.Name}
	subscriptions := map[string]delivery.Subscription{}
	for _, name := range names {
		c.Name = name
		transport := open(t, c)
		subscriptions[name] = subscribe(t, transport, 100)
		require.Nil(t, transport.SendAfter(ctx, time.Second, []delivery.Envelope{message(name)}))
	}
	for name, subscription := range subscriptions {
		e, err := receive(t, subscription, 1)[0].Envelope()
		require.NoError(t, err)
		assert.Equal(t, name, e.ID)
	}
	for _, subscription := range subscriptions {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_, err := subscription.Receive(short)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, "a copy of another's message")
	}
}

// A name whose queues are all gone stops no other name's delays.
func TestDeletedNameBlocksNobody(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	c.Topology = withLadder(Quorum, c.Name+".ladder.")
	warned := make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{"unroutable messages found", warned}, nil))
	gone := open(t, c)
	other := c
	other.Name = servers.Unique(t)
	alive := open(t, other)
	raw(t, c.URL, func(channel *amqp.Channel) {
		for _, queue := range []string{gone.level(delivery.Normal).Queue, gone.topology.UnroutableQueue} {
			_, err := channel.QueueDelete(queue, false, false, false)
			require.NoError(t, err)
		}
	})
	const n = 100 // more than the broker dead-letters at a time
	batch := make([]delivery.Envelope, n)
	for i := range batch {
		batch[i] = message(strconv.Itoa(i))
	}
	require.Nil(t, gone.SendAfter(context.Background(), 2*time.Second, batch))
	require.Nil(t, alive.SendAfter(context.Background(), 3*time.Second, batch[:1]))
	receive(t, subscribe(t, alive, 100), 1)
	require.Eventually(t, func() bool {
		waiting, err := alive.Waiting(context.Background())
		return assert.NoError(t, err) && waiting == Waiting{Lost: n}
	}, time.Minute, 20*time.Millisecond)
	_, err := alive.Depth(context.Background())
	require.NoError(t, err)
	<-warned
}

// formerQuorum is Quorum as it was when each name had a delay ladder of its own.
func formerQuorum(name string, server Version) Topology {
	t := withoutLadder(Quorum)(name, server)
	due, lost := name+".due", name+".unroutable"
	t.Exchanges = append(t.Exchanges,
		Exchange{Name: lost, Kind: "fanout"},
		Exchange{Name: due, Kind: "topic", Arguments: map[string]any{"alternate-exchange": lost}})
	t.Bindings = append(t.Bindings, Binding{Source: lost, Destination: lost})
	next := due
	for i := range ladderLevels {
		level := name + ".delay." + strconv.Itoa(i)
		t.Delays = append(t.Delays, level)
		t.Exchanges = append(t.Exchanges, Exchange{Name: level, Kind: "topic"})
		t.Queues = append(t.Queues, Queue{Name: level, Arguments: map[string]any{
			"x-queue-type":           "quorum",
			"x-message-ttl":          int64(1000) << i,
			"x-dead-letter-exchange": next,
			"x-dead-letter-strategy": "at-least-once",
			"x-overflow":             "reject-publish",
		}})
		higher := strings.Repeat("*.", ladderLevels-1-i)
		t.Bindings = append(t.Bindings,
			Binding{Source: level, Key: higher + "1.#", Destination: level},
			Binding{Source: level, Key: higher + "0.#", Destination: next, ToExchange: true})
		next = level
	}
	for i := range t.Levels {
		level := &t.Levels[i]
		level.Address = level.Route.Key
		t.Bindings = append(t.Bindings, Binding{Source: due, Key: strings.Repeat("*.", ladderLevels) + level.Address, Destination: level.Queue})
	}
	return t
}

// What was delayed when each name had a ladder of its own arrives, and so does what
// processes of that time send while others share the ladder.
func TestFormerLadderIsEmptied(t *testing.T) {
	t.Parallel()
	for name, shards := range map[string]int{"as it was": 1, "with shards now": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			former := c
			former.Topology = formerQuorum
			ctx := context.Background()
			sender := open(t, former)
			var want []string
			send := func(transport *Transport, delay time.Duration) {
				id := strconv.Itoa(len(want))
				want = append(want, id)
				e := message(id)
				e.Priority = delivery.Priorities()[len(want)%4]
				require.Nil(t, transport.SendAfter(ctx, delay, []delivery.Envelope{e}))
			}
			for i := range 8 {
				send(sender, time.Duration(1+i)*time.Second)
			}
			c.Shards = shards
			transport := open(t, c)
			waiting, err := transport.Waiting(ctx)
			require.NoError(t, err)
			assert.Positive(t, waiting.Delayed, "the former ladder counts")
			for i := range 4 {
				send(sender, time.Duration(1+i)*time.Second)
				send(transport, time.Duration(1+i)*time.Second)
			}
			require.NoError(t, sender.Close())
			var got []string
			for _, in := range receive(t, subscribe(t, transport, 100), len(want)) {
				e, err := in.Envelope()
				require.NoError(t, err)
				got = append(got, e.ID)
				require.NoError(t, in.Ack())
			}
			assert.ElementsMatch(t, want, got)
		})
	}
}
