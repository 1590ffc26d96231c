package faults

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency/redisstore"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

const (
	publishConnections = 2
	window             = 128
	prefetch           = 50
	concurrency        = 16
	// maxInFlight is W + U, the publisher's window and what may be unacked: so many
	// messages may come as a second copy after one break.
	maxInFlight = publishConnections*window + 4*prefetch

	// minPublished is how many messages a row publishes at least.
	minPublished = 2000
)

// pipeline is what the rows break, from publisher to dead letters.
type pipeline struct {
	*traffic
	config          pipelineConfig
	transportConfig rabbitmq.Config
	transport       *rabbitmq.Transport
	consumer        *delivery.Consumer
	client          *redis.Client
	keys            *hookedKeyStore
	store           *databaseStore // nil without a database
	deadLetterStore *failingDeadLetters
	manager         *dlq.Manager
	metrics         *metrics.Collector
	log             *logRecorder

	handler atomic.Pointer[delivery.Handler]
	effects atomic.Int64
	running atomic.Int64
	peak    atomic.Int64

	stopConsuming context.CancelFunc
	consumed      chan error

	mu       sync.Mutex
	attempts map[string][]int // the numbers of each message's attempts
}

// pipeline makes a pipeline that ends with the row.
func (r *rowTest) pipeline(s pipelineConfig) *pipeline {
	r.Helper()
	p := &pipeline{
		traffic: &traffic{rowTest: r, timeout: s.timeout, refusals: map[string]int{}},
		config:  s, log: &logRecorder{limit: rowLogEntries}, metrics: metrics.NewCollector(metrics.CollectorConfig{}),
		attempts: map[string][]int{},
	}
	if s.lean {
		p.log.limit = soakLogEntries
		p.metrics = metrics.NewCollector(metrics.CollectorConfig{Window: soakWindow})
	}
	if p.config.amqp == "" {
		p.config.amqp = r.broker.URL()
	}
	if p.config.redis == "" {
		p.config.redis = r.redis.URL()
	}
	if p.timeout == 0 {
		p.timeout = 10 * time.Second
	}
	p.body.Store(200)
	p.setHandler(s.handler)
	r.atEnd(func() {
		if r.Failed() {
			r.Logf("%s\nrefusals: %v\nthe log ends with:\n%s", p.ledger.Report(), p.refused(), p.log.tail(60))
		}
	})
	p.openTransport()
	if s.database != nil {
		p.store = r.openStore(*s.database)
	}
	p.openKeys()
	p.publishThrough(p.transport)
	if p.config.deadLetters == nil {
		p.config.deadLetters = dlq.NewMemory(dlq.MemoryConfig{})
	}
	p.manager = dlq.NewManager(p.config.deadLetters, p.publisher.Load(), dlq.Config{Metrics: p.metrics, Logger: p.log.logger()})
	p.deadLetterStore = &failingDeadLetters{DeadLetterer: p.manager}
	if !s.noConsumer {
		p.startConsumer()
	}
	return p
}

func (p *pipeline) openTransport() {
	p.Helper()
	p.transportConfig = rabbitmq.Config{
		URL: p.config.amqp, Name: servers.Unique(p.T), PublishConnections: publishConnections, Window: window,
		DialTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, Heartbeat: 5 * time.Second,
		MaxReconnectDelay: time.Second, Logger: p.log.logger(),
	}
	if p.config.transport != nil {
		p.config.transport(&p.transportConfig)
	}
	transport := p.open(p.transportConfig)
	p.transport = transport
	topology := transport.Topology()
	broker := p.config.amqp
	p.atEnd(func() {
		if err := deleteTopology(broker, topology); err != nil {
			p.Errorf("queues left behind: %v", err)
		}
	})
	p.atEnd(func() { p.mustEnd("Transport.Close", transport.Close) })
}

// open opens a transport, which the caller has to close.
func (p *pipeline) open(config rabbitmq.Config) *rabbitmq.Transport {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	transport, err := rabbitmq.Open(ctx, config)
	require.NoError(p, err)
	return transport
}

// publishThrough has the traffic use that transport from here on.
func (p *pipeline) publishThrough(transport *rabbitmq.Transport) {
	p.Helper()
	config := delivery.PublisherConfig{
		Metrics: p.metrics, Logger: p.log.logger(), MaxBodyBytes: p.config.maxBody, PendingGrace: p.config.pendingGrace,
	}
	if p.store != nil {
		config.Store = p.store
	}
	publisher, err := delivery.NewPublisher(transport, config)
	require.NoError(p, err)
	p.atEnd(func() {
		p.mustEnd("Publisher.Close", func() error { return publisher.Close(context.WithoutCancel(p.ctx)) })
	})
	p.publisher.Store(publisher)
}

// raw runs f with a channel of the bare client.
func (p *pipeline) raw(f func(*amqp.Channel)) {
	p.Helper()
	conn, err := amqp.Dial(p.config.amqp)
	require.NoError(p, err)
	defer conn.Close() //nolint:errcheck // nothing is expected of it any more
	channel, err := conn.Channel()
	require.NoError(p, err)
	f(channel)
}

func (p *pipeline) openKeys() {
	p.Helper()
	client, err := redisstore.NewClient(p.config.redis)
	require.NoError(p, err)
	p.client = client
	store := redisstore.New(client, redisstore.Config{Prefix: p.transportConfig.Name + ":"})
	p.keys = &hookedKeyStore{Store: store, afterComplete: p.config.onCompleted}
	if p.config.keysInDatabase {
		p.keys.Store = p.store.Keys()
	}
	p.atEnd(func() {
		assert.NoError(p, store.Close())
		assert.NoError(p, client.Close())
	})
}

// deleteTopology removes what the row made in the broker, so that it does not slow
// the next restart.
func deleteTopology(url string, topology rabbitmq.Topology) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it is done
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	var faults []error
	for _, exchange := range topology.Exchanges {
		faults = append(faults, channel.ExchangeDelete(exchange.Name, false, false))
	}
	for _, queue := range topology.Queues {
		_, err := channel.QueueDelete(queue.Name, false, false, false)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// startConsumer starts a consumer. The one before it must have been stopped.
func (p *pipeline) startConsumer() {
	p.Helper()
	transport := delivery.Transport(p.transport)
	if p.config.onAck != nil {
		transport = &hookedTransport{Transport: p.transport, onAck: p.config.onAck}
	}
	consumer, err := delivery.NewConsumer(transport, p.handle, p.consumerConfig())
	require.NoError(p, err)
	p.consumer = consumer
	ctx, cancel := context.WithCancel(context.Background())
	consumed := make(chan error, 1)
	go func() { consumed <- consumer.Run(ctx) }()
	p.stopConsuming, p.consumed = cancel, consumed
	p.atEnd(p.stopConsumer)
}

// consumerConfig is what the row's consumers have in common.
func (p *pipeline) consumerConfig() delivery.ConsumerConfig {
	config := delivery.ConsumerConfig{
		Concurrency: concurrency, Prefetch: prefetch,
		HandlerTimeout: patience, DrainTimeout: 20 * time.Second,
		Retry:       retry.Exponential{Base: time.Second, MaxRetries: 3},
		Idempotency: p.keys, IdempotencyLease: 15 * time.Second, IdempotencyWindow: 30 * time.Minute,
		// A large sample: handlers that fail for some messages must not open it.
		Breaker:     breaker.New(breaker.Config{Name: "handler", SampleSize: 500, OpenFor: time.Second}),
		DeadLetters: p.deadLetterStore, Metrics: p.metrics, Logger: p.log.logger(),
	}
	switch {
	case p.store != nil && p.config.onUpdate != nil:
		config.Store = &hookedMessageStore{Store: p.store.Store, onUpdate: p.config.onUpdate}
	case p.store != nil:
		config.Store = p.store
	}
	if p.config.consumer != nil {
		p.config.consumer(&config)
	}
	return config
}

// stopConsumer stops the consumer and waits for its drain.
func (p *pipeline) stopConsumer() {
	if p.stopConsuming == nil {
		return
	}
	p.stopConsuming()
	p.stopConsuming = nil
	p.mustEnd("Consumer.Run", func() error { return <-p.consumed })
}

// mustEnd runs something that must end by itself.
func (p *pipeline) mustEnd(what string, do func() error) {
	const limit = 20*time.Second + patience // a drain with its cancel grace, and more
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		assert.NoError(p, err, what) //nolint:testifylint // it is not the last thing to clean up
	case <-time.After(limit):
		p.Errorf("%s hangs", what)
	}
}

// setHandler has another function run before the effect, or none.
func (p *pipeline) setHandler(handler delivery.Handler) { p.handler.Store(&handler) }

func (p *pipeline) handle(ctx context.Context, m delivery.Message) error {
	now := p.running.Add(1)
	defer p.running.Add(-1)
	for peak := p.peak.Load(); now > peak && !p.peak.CompareAndSwap(peak, now); {
		peak = p.peak.Load()
	}
	attempt, _ := delivery.AttemptFrom(ctx)
	p.mu.Lock()
	if !p.config.lean {
		p.attempts[m.ID] = append(p.attempts[m.ID], attempt.Number)
	}
	p.mu.Unlock()
	if handler := p.handler.Load(); *handler != nil {
		if err := (*handler)(ctx, m); err != nil {
			return err
		}
	}
	p.target.Effect(m.ID)
	p.effects.Add(1)
	return nil
}

// awaitMore waits until so many more messages were accepted and had their effect.
func (p *pipeline) awaitMore(n int64) {
	p.Helper()
	accepted, effects := p.accepted.Load()+n, p.effects.Load()+n
	p.eventually(func() bool { return p.accepted.Load() >= accepted && p.effects.Load() >= effects },
		"messages don't flow")
}

// finish waits until enough is published, stops the traffic, drains, and stops the
// consumer.
func (p *pipeline) finish() {
	p.Helper()
	p.eventually(func() bool { return p.accepted.Load() >= minPublished }, "too few messages are accepted")
	p.stopTraffic()
	p.drain()
	p.stopConsumer()
}

// drain waits until no published message is lost any longer and nothing is queued,
// and counts the dead letters.
func (p *pipeline) drain() {
	p.Helper()
	p.within(2*time.Minute, func() bool {
		p.countDeadLetters()
		return len(p.ledger.Report().Lost) == 0
	}, "published messages have no end")
	// What is left now are second copies. If one has an effect, it is a duplicate.
	empty := func() bool {
		depths, err := p.transport.Depth(p.ctx)
		if err != nil {
			return false
		}
		for _, depth := range depths {
			if depth.Messages > 0 {
				return false
			}
		}
		return p.running.Load() == 0
	}
	p.eventually(empty, "the queues don't become empty")
	p.wait(200 * time.Millisecond)
	p.eventually(empty, "the queues don't stay empty")
	p.countDeadLetters()
}
