package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// ledgerSink is a store of dead letters that can be made to fail.
type ledgerSink struct {
	*dlq.Manager

	mu    sync.Mutex
	calls []int // the sizes of those that came
	fail  func([]delivery.DeadLetter) error
	after func()
}

func newSink() *ledgerSink {
	return &ledgerSink{Manager: dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{})}
}

func (s *ledgerSink) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
	s.mu.Lock()
	s.calls = append(s.calls, len(letters))
	fail, after := s.fail, s.after
	s.mu.Unlock()
	if fail != nil {
		if err := fail(letters); err != nil {
			return err
		}
	}
	if err := s.Manager.DeadLetter(ctx, letters...); err != nil {
		return err
	}
	if after != nil {
		after()
	}
	return nil
}

func (s *ledgerSink) failWith(fail func([]delivery.DeadLetter) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *ledgerSink) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// await returns what is kept as soon as that is n entries, by message ID.
func (s *ledgerSink) await(t *testing.T, n int) map[string]dlq.Entry {
	t.Helper()
	var page dlq.Page
	require.Eventually(t, func() bool {
		var err error
		page, err = s.List(context.Background(), dlq.Query{Limit: dlq.MaxLimit})
		return err == nil && len(page.Entries) >= n
	}, time.Minute, 5*time.Millisecond)
	require.Len(t, page.Entries, n)
	entries := map[string]dlq.Entry{}
	for _, entry := range page.Entries {
		entries[entry.Envelope.ID] = entry
	}
	return entries
}

// collect runs a collector until what it returns is called.
func collect(t *testing.T, transport *Transport, sink delivery.DeadLetterer, config CollectorConfig) (stop func()) {
	t.Helper()
	collector, err := NewCollector(transport, sink, config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- collector.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !transport.closing.Load() {
			assert.NoError(t, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// waiting is how many letters wait in the dead letter queue, with what was in
// somebody's hands and has come back.
func waiting(t *testing.T, transport *Transport) int {
	t.Helper()
	count, err := ask(context.Background(), transport, func(conn *connection) (int, error) {
		return conn.messagesIn(transport.topology.DeadLetterQueue)
	})
	require.NoError(t, err)
	return count
}

func TestCollectorKeepsWhatTheBrokerGivesUp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		topology func(string, Version) Topology
		limited  bool
	}{"quorum": {Quorum, true}, "classic": {Classic, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			c.Topology = func(name string, server Version) Topology {
				topology := test.topology(name, server)
				for _, q := range topology.Queues {
					switch q.Name {
					case name + ".high":
						q.Arguments["x-message-ttl"] = int64(1)
					case name + ".low":
						q.Arguments["x-max-length"] = int64(1)
					case name + ".normal":
						if test.limited {
							q.Arguments[deliveryLimit] = int64(1)
						}
					}
				}
				return topology
			}
			transport := open(t, c)
			sink := newSink()
			before := time.Now().Truncate(time.Second)
			at := func(id string, priority delivery.Priority) delivery.Envelope {
				e := valid()
				e.ID, e.Priority, e.Body, e.Attempt, e.Headers = id, priority, []byte(id), 2, map[string]string{"trace": id}
				return e
			}
			sent := map[string]delivery.Envelope{}
			put := func(id string, priority delivery.Priority) {
				sent[id] = at(id, priority)
				require.Nil(t, sendWithin(t, transport, time.Minute, sent[id]))
			}
			put("expired", delivery.High)
			put("maxlen", delivery.Low)
			require.Nil(t, sendWithin(t, transport, time.Minute, at("stays", delivery.Low)))
			put("rejected", delivery.Normal)
			raw(t, c.URL, func(channel *amqp.Channel) {
				get := func() amqp.Delivery {
					var d amqp.Delivery
					require.Eventually(t, func() bool {
						var ok bool
						var err error
						d, ok, err = channel.Get(c.Name+".normal", false)
						return err == nil && ok
					}, time.Minute, time.Millisecond)
					return d
				}
				require.NoError(t, get().Reject(false))
				if test.limited {
					put("delivery_limit", delivery.Normal)
					for range 2 {
						require.NoError(t, get().Reject(true)) // from 4.3 on a nack does not count
					}
				}
				// The channel's end must not requeue before the broker has seen the above.
				_, err := channel.QueueDeclarePassive(c.Name+".normal", true, false, false, false, nil)
				require.NoError(t, err)
			})
			collect(t, transport, sink, CollectorConfig{})
			entries := sink.await(t, len(sent))
			for id, envelope := range sent {
				entry := entries[id]
				assert.Equal(t, delivery.ReasonBroker, entry.Reason)
				assert.Equal(t, "rabbitmq: dead-lettered by the broker: "+id, entry.Error)
				assert.Equal(t, envelope, entry.Envelope)
				assert.Nil(t, entry.Raw)
				assert.Equal(t, c.Name, entry.Source)
				assert.WithinRange(t, entry.DeadAt, before, time.Now().Add(time.Second))
				level := transport.level(envelope.Priority)
				assert.Equal(t, map[string]string{
					FactReason: id, FactQueue: level.Queue, FactCount: "1", FactTime: entry.DeadAt.Format(time.RFC3339),
					FactExchange: c.Name, FactRoutingKeys: level.Route.Key,
				}, entry.Facts)
			}
			require.Eventually(t, func() bool { return waiting(t, transport) == 0 }, time.Minute, 10*time.Millisecond)
		})
	}
}

// Letters of ours come out as they went in, and what is foreign is kept.
func TestCollectorKeepsOwnAndForeignLetters(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	own := delivery.DeadLetter{
		ID: "letter", Envelope: valid(), Reason: delivery.ReasonExhausted, Error: "no answer", Source: "sms",
		At: time.Unix(1_700_000_000, 5000).UTC(), Facts: map[string]string{"provider": "a:b", "": "empty"},
	}
	own.Envelope.Attempt, own.Envelope.Body, own.Envelope.History = 4, []byte("body"), []delivery.Failure{{At: time.Unix(5, 0).UTC(), Error: "first"}}
	bad := delivery.DeadLetter{ID: "bad", Raw: []byte{0xff}, Reason: delivery.ReasonMalformed, Error: "no message", Source: "sms", At: own.At}
	ctx := context.Background()
	for range 2 { // in a queue, nothing is replaced
		require.NoError(t, transport.DeadLetter(ctx, own, bad))
	}
	dead := transport.Topology().DeadLetter
	raw(t, c.URL, func(channel *amqp.Channel) {
		for _, p := range []amqp.Publishing{
			{Body: []byte("not ours")},
			{Body: []byte("not ours")}, // the same once more
			{Body: []byte("not ours either"), Headers: amqp.Table{"n": int64(5), "deep": amqp.Table{"at": time.Unix(7, 0), "list": []any{"a", nil}}}},
			{Body: []byte("hostile"), Headers: amqp.Table{"x-death": "none", headerDeadID: int64(1)}},
		} {
			p.DeliveryMode = amqp.Persistent
			publish(t, channel, dead, p)
		}
		// Ours, but nobody said why.
		var p amqp.Publishing
		p.Headers = amqp.Table{}
		e := valid()
		e.ID = "unexplained"
		require.NoError(t, transport.limits().encode(&e, time.Time{}, &p))
		publish(t, channel, dead, p)
	})
	sink := newSink()
	collect(t, transport, sink, CollectorConfig{Source: "collector", Batch: 3})
	require.Eventually(t, func() bool { return waiting(t, transport) == 0 }, time.Minute, 10*time.Millisecond)
	sink.await(t, 6)
	assert.LessOrEqual(t, slices.Max(sink.sizes()), 3)

	got, err := sink.Get(ctx, own.ID, bad.ID)
	require.NoError(t, err)
	for i, want := range []delivery.DeadLetter{own, bad} {
		entry := got[i]
		assert.Equal(t, want, delivery.DeadLetter{
			ID: entry.ID, Envelope: entry.Envelope, Raw: entry.Raw, Reason: entry.Reason, Error: entry.Error,
			Source: entry.Source, At: entry.DeadAt, Facts: entry.Facts,
		})
	}
	page, err := sink.List(ctx, dlq.Query{Filter: dlq.Filter{Source: "collector"}})
	require.NoError(t, err)
	raws := map[string]dlq.Entry{}
	for _, entry := range page.Entries {
		raws[string(entry.Raw)] = entry
	}
	require.Len(t, raws, 4)
	for _, body := range []string{"not ours", "not ours either", "hostile"} {
		assert.Equal(t, delivery.ReasonMalformed, raws[body].Reason, body)
		assert.Empty(t, raws[body].Envelope.Body, body)
	}
	assert.Equal(t, delivery.ReasonBroker, raws[""].Reason)
	assert.Contains(t, raws[""].Error, "does not say why")
}

// Whatever a message says of itself, it replaces no dead letter of another one, of
// the pipeline or of the broker.
func TestCollectorKeepsForeignMessagesApart(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	transport := open(t, c)
	sink := newSink()
	payment := func(id string) delivery.Envelope {
		e := message(id)
		e.Body = []byte("pay 100")
		return e
	}
	require.NoError(t, sink.Manager.DeadLetter(t.Context(), delivery.DeadLetter{
		ID: "letter", Envelope: payment("handled"), Reason: delivery.ReasonExhausted, Source: "payments", At: time.Unix(5, 0).UTC(),
	}))
	require.Nil(t, sendWithin(t, transport, time.Minute, payment("rejected")))
	raw(t, c.URL, func(channel *amqp.Channel) {
		d, ok, err := channel.Get(c.Name+".normal", false)
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, d.Reject(false))
		for _, xdeath := range []any{nil, "none", []any{}, []any{amqp.Table{"queue": c.Name + ".dlq", "reason": "rejected", "count": int64(1)}}} {
			p := amqp.Publishing{
				MessageId: "rejected", DeliveryMode: amqp.Persistent, Expiration: "1", Body: []byte("pay nothing"),
				Headers: amqp.Table{headerRecipient: "you", headerDeadID: "letter", headerDeadReason: "exhausted"},
			}
			if xdeath != nil {
				p.Headers["x-death"] = xdeath
			}
			publish(t, channel, Route{Exchange: c.Name, Key: "normal"}, p)
		}
	})
	require.Eventually(t, func() bool { return waiting(t, transport) == 5 }, time.Minute, 10*time.Millisecond)
	var stored atomic.Int64
	sink.after = func() { stored.Add(1) }
	collect(t, transport, sink, CollectorConfig{Batch: 1})
	require.Eventually(t, func() bool { return stored.Load() == 5 }, time.Minute, 10*time.Millisecond)
	page, err := sink.List(t.Context(), dlq.Query{})
	require.NoError(t, err)
	bodies := map[string]int{}
	for _, entry := range page.Entries {
		bodies[entry.Envelope.ID+": "+string(entry.Envelope.Body)]++
		if entry.ID != "letter" {
			assert.Equal(t, delivery.ReasonBroker, entry.Reason)
		}
	}
	assert.Equal(t, map[string]int{"handled: pay 100": 1, "rejected: pay 100": 1, "rejected: pay nothing": 1}, bodies)
}

// A delayed message whose queue is gone when it is due is a dead letter: here one for
// a shard that another number of shards left behind and that was deleted.
func TestCollectorTakesWhatFindsNoQueue(t *testing.T) {
	t.Parallel()
	const n = 4
	c := config(t, shared.AMQP(t))
	c.Topology = withLadder(Quorum, c.Name+".ladder.")
	split := c
	split.Shards = 2
	sender := open(t, split)
	warned := make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{"unroutable messages found", warned}, nil))
	transport := open(t, c)
	raw(t, c.URL, func(channel *amqp.Channel) {
		for _, shard := range sender.level(delivery.Normal).Shards {
			_, err := channel.QueueDelete(shard.Queue, false, false, false)
			require.NoError(t, err)
		}
		publish(t, channel, Route{Exchange: c.Name + ".ladder.due", Key: ladderKey(0, ladderLevels, ladderWord(c.Name)+".nowhere")}, amqp.Publishing{
			MessageId: "foreign", DeliveryMode: amqp.Persistent, Headers: amqp.Table{headerDeadID: "letter", headerDeadReason: "exhausted"},
		})
	})
	batch := make([]delivery.Envelope, n)
	for i := range batch {
		batch[i] = forRecipient(fmt.Sprint(i), i)
	}
	require.Nil(t, sender.SendAfter(t.Context(), time.Hour, batch[:1]))
	require.Nil(t, sender.SendAfter(t.Context(), time.Second, batch))
	isWaiting := func(want Waiting) {
		t.Helper()
		require.Eventually(t, func() bool {
			got, err := transport.Waiting(t.Context())
			return assert.NoError(t, err) && got == want
		}, time.Minute, 20*time.Millisecond)
	}
	isWaiting(Waiting{Delayed: 1, Unroutable: n + 1})
	_, err := transport.Depth(t.Context())
	require.NoError(t, err)
	<-warned

	sink := newSink()
	collect(t, transport, sink, CollectorConfig{})
	entries := sink.await(t, n+1)
	for _, want := range batch {
		entry := entries[want.ID]
		assert.Equal(t, want, entry.Envelope)
		assert.Equal(t, delivery.ReasonBroker, entry.Reason)
		assert.Equal(t, "rabbitmq: dead-lettered by the broker: unroutable", entry.Error)
		assert.Equal(t, map[string]string{
			FactReason: "unroutable", FactExchange: c.Name + ".ladder.due", FactTime: entry.DeadAt.Format(time.RFC3339),
			FactRoutingKeys: ladderKey(1, ladderLevels, sender.level(delivery.Normal).shardOf(want.Recipient).Address),
		}, entry.Facts)
	}
	assert.Equal(t, delivery.ReasonMalformed, entries["foreign"].Reason)
	assert.NotEqual(t, "letter", entries["foreign"].ID)
	<-warned
	isWaiting(Waiting{Delayed: 1})
}

// letters puts n letters into the dead letter queue as the broker does.
func letters(t *testing.T, transport *Transport, n int) {
	t.Helper()
	batch := make([]delivery.Envelope, n)
	for i := range batch {
		batch[i] = message(fmt.Sprint(i))
	}
	require.Nil(t, sendWithin(t, transport, time.Minute, batch...))
	raw(t, transport.config.URL, func(channel *amqp.Channel) {
		deliveries, err := channel.Consume(transport.level(delivery.Normal).Queue, "", false, false, false, false, nil)
		require.NoError(t, err)
		for range n {
			require.NoError(t, (<-deliveries).Reject(false))
		}
		// With the channel's end, what the broker has not worked off comes back.
		require.Eventually(t, func() bool { return waiting(t, transport) == n }, time.Minute, 10*time.Millisecond)
	})
}

// A topology of the host's may have no place for what finds no queue.
func TestCollectorWithoutAnUnroutableQueue(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	c.Topology = func(name string, server Version) Topology {
		topology := withoutLadder(Quorum)(name, server)
		unroutable := name + ".unroutable"
		topology.Exchanges = slices.DeleteFunc(topology.Exchanges, func(e Exchange) bool { return e.Name == unroutable })
		topology.Queues = slices.DeleteFunc(topology.Queues, func(q Queue) bool { return q.Name == unroutable })
		topology.Bindings = slices.DeleteFunc(topology.Bindings, func(b Binding) bool { return b.Source == unroutable })
		return topology
	}
	transport, sink := open(t, c), newSink()
	require.NoError(t, transport.DeadLetter(t.Context(), delivery.DeadLetter{
		ID: "1", Envelope: message("m"), Reason: delivery.ReasonPermanent, At: time.Now(),
	}))
	waiting, err := transport.Waiting(t.Context())
	require.NoError(t, err)
	assert.Equal(t, Waiting{DeadLetters: 1}, waiting)
	collect(t, transport, sink, CollectorConfig{})
	assert.Contains(t, sink.await(t, 1), "m")
}

func TestCollectorWaitsForItsStore(t *testing.T) {
	t.Parallel()
	const n = 200
	transport := open(t, config(t, shared.AMQP(t)))
	letters(t, transport, n)
	sink := newSink()
	down := errors.New("down")
	sink.failWith(func([]delivery.DeadLetter) error { return down })
	c := CollectorConfig{Batch: 50, MaxRetryDelay: 50 * time.Millisecond}
	stop := collect(t, transport, sink, c)
	require.Eventually(t, func() bool { return len(sink.sizes()) >= 10 }, time.Minute, time.Millisecond)
	stop()
	require.Eventually(t, func() bool { return waiting(t, transport) == n }, time.Minute, 10*time.Millisecond, "nothing was acked")
	sink.await(t, 0)

	collect(t, transport, sink, c)
	before := len(sink.sizes())
	require.Eventually(t, func() bool { return len(sink.sizes()) >= before+3 }, time.Minute, time.Millisecond)
	sink.failWith(nil)
	sink.await(t, n)
	require.Eventually(t, func() bool { return waiting(t, transport) == 0 }, time.Minute, 10*time.Millisecond)
	assert.LessOrEqual(t, slices.Max(sink.sizes()), 50)
	assert.Greater(t, slices.Max(sink.sizes()), 10, "many go together")
}

// The broker gets no ack because the connection is gone when the store has
// confirmed, as when the process dies just then.
func TestCollectorDiesBetweenPutAndAck(t *testing.T) {
	t.Parallel()
	const n = 120
	near := open(t, config(t, shared.AMQP(t)))
	letters(t, near, n)
	raw(t, near.config.URL, func(channel *amqp.Channel) { // and one that is not ours
		publish(t, channel, near.topology.DeadLetter, amqp.Publishing{Body: []byte("not ours"), DeliveryMode: amqp.Persistent})
	})
	sink := newSink()
	for range 3 {
		network := newNetwork(t, near.config.URL)
		c := near.config
		c.URL = network.url
		transport := open(t, c)
		died := make(chan struct{})
		sink.mu.Lock()
		sink.after = sync.OnceFunc(func() {
			network.close()
			close(died)
		})
		sink.mu.Unlock()
		stop := collect(t, transport, sink, CollectorConfig{Batch: 40})
		select {
		case <-died:
		case <-time.After(20 * time.Second):
			require.Fail(t, "nothing came")
		}
		require.NoError(t, transport.Close())
		stop()
	}
	require.Eventually(t, func() bool { return waiting(t, near) == n+1 }, time.Minute, 10*time.Millisecond, "nothing was acked")
	sink.mu.Lock()
	sink.after = nil
	sink.mu.Unlock()
	collect(t, near, sink, CollectorConfig{})
	require.Eventually(t, func() bool { return waiting(t, near) == 0 }, time.Minute, 10*time.Millisecond)
	sink.await(t, n+1)
	total := 0
	for _, size := range sink.sizes() {
		total += size
	}
	assert.Greater(t, total, n+1, "some were put twice")
}

func TestCollectorOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	const n = 60
	near := open(t, config(t, shared.AMQP(t)))
	network := newNetwork(t, near.config.URL)
	c := near.config
	c.URL = network.url
	sink := newSink()
	sink.after = func() { network.cut() }
	transport := open(t, c)
	letters(t, near, n)
	collect(t, transport, sink, CollectorConfig{Batch: 7})
	require.Eventually(t, func() bool { return len(sink.sizes()) >= 3 }, time.Minute, time.Millisecond)
	sink.mu.Lock()
	sink.after = nil
	sink.mu.Unlock()
	sink.await(t, n)
	require.Eventually(t, func() bool { return waiting(t, near) == 0 }, time.Minute, 10*time.Millisecond)
}

// A letter that the store never takes stays in the queue, and the others don't
// wait for it.
func TestCollectorGoesAroundALetterThatFails(t *testing.T) {
	t.Parallel()
	const n = 30
	transport := open(t, config(t, shared.AMQP(t)))
	letters(t, transport, n)
	sink := newSink()
	sink.failWith(func(letters []delivery.DeadLetter) error {
		for i := range letters {
			if letters[i].Envelope.ID == "3" {
				return errors.New("can't be stored")
			}
		}
		return nil
	})
	stop := collect(t, transport, sink, CollectorConfig{Batch: 10, MaxRetryDelay: 20 * time.Millisecond})
	entries := sink.await(t, n-1)
	assert.NotContains(t, entries, "3")
	stop()
	require.Eventually(t, func() bool { return waiting(t, transport) == 1 }, time.Minute, 10*time.Millisecond)
}

func TestCollectorEnds(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	collector, err := NewCollector(transport, newSink(), CollectorConfig{})
	require.NoError(t, err)
	ended := make(chan error)
	go func() { ended <- collector.Run(context.Background()) }()
	require.Eventually(t, func() bool {
		transport.mu.Lock()
		defer transport.mu.Unlock()
		return len(transport.subscriptions) == 1
	}, time.Minute, time.Millisecond)
	require.NoError(t, transport.Close())
	require.ErrorIs(t, <-ended, delivery.ErrClosed)
	require.ErrorIs(t, collector.Run(context.Background()), delivery.ErrClosed)

	passive := open(t, c)
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(c.Name+".dlq", false, false, false)
		require.NoError(t, err)
	})
	passive.topology.passive = true
	collector, err = NewCollector(passive, newSink(), CollectorConfig{})
	require.NoError(t, err)
	var fault *TopologyError
	require.ErrorAs(t, collector.Run(context.Background()), &fault)
	assert.Equal(t, c.Name+".dlq", fault.Name)
}

func TestCollectorConfigFaults(t *testing.T) {
	opened := &Transport{life: context.Background(), topology: declaredTopology{Topology: Quorum("q", Version{})}, config: Config{Name: "q"}.withDefaults()}
	bare := &Transport{life: context.Background(), config: opened.config}
	good := CollectorConfig{}
	for want, test := range map[string]struct {
		transport *Transport
		sink      delivery.DeadLetterer
		config    CollectorConfig
	}{
		"transport was not made by Open":         {nil, newSink(), good},
		"was not made by Open":                   {&Transport{}, newSink(), good},
		"Topology.DeadLetterQueue is empty":      {bare, newSink(), good},
		"sink is nil":                            {opened, nil, good},
		"sink is the transport's own":            {opened, opened, good},
		"sink: dlq":                              {opened, dlq.NewManager(nil, nil, dlq.Config{}), good},
		"Batch is 1001, want 1 to 1000":          {opened, newSink(), CollectorConfig{Batch: 1001}},
		"Batch is -1":                            {opened, newSink(), CollectorConfig{Batch: -1}},
		"Timeout is -1ns, want more than 0":      {opened, newSink(), CollectorConfig{Timeout: -1}},
		"MaxRetryDelay is -1ns, want more than ": {opened, newSink(), CollectorConfig{MaxRetryDelay: -1}},
	} {
		t.Run(want, func(t *testing.T) {
			_, err := NewCollector(test.transport, test.sink, test.config)
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, want)
		})
	}
	_, err := NewCollector(opened, newSink(), good)
	require.NoError(t, err)
	for _, collector := range []*Collector{nil, {}} {
		require.ErrorIs(t, collector.Run(context.Background()), ErrConfig)
	}
}
