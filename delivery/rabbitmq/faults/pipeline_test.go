package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	lanes       = 2
	window      = 128
	prefetch    = 50
	concurrency = 16
	// atStake is W + U: what may be unconfirmed and unacked at one moment, and so
	// come as a second copy after it.
	atStake = lanes*window + 4*prefetch

	callers   = 8
	batchSize = 5
	// pace bounds the traffic to some 1600 messages a second.
	pace = 25 * time.Millisecond
	// fewThousand is how many messages a row publishes at least.
	fewThousand = 2000
)

// pipeline is the whole of it, from publisher to dead letters.
type pipeline struct {
	*rig
	setup     setup
	config    rabbitmq.Config
	transport *rabbitmq.Transport
	publisher atomic.Pointer[delivery.Publisher]
	consumer  *delivery.Consumer
	client    *redis.Client
	store     *tappedStore
	records   *records // nil without a database
	letters   *failingLetters
	manager   *dlq.Manager
	metrics   *metrics.Collector
	log       *logbook

	handler  atomic.Pointer[delivery.Handler]
	body     atomic.Int64 // bytes of each message of the traffic
	accepted atomic.Int64
	latest   atomic.Int64 // when the last Publish began that was accepted, in Unix nanoseconds
	effects  atomic.Int64
	running  atomic.Int64
	peak     atomic.Int64

	stopping   chan struct{}
	publishing sync.WaitGroup
	round      int

	stopConsuming context.CancelFunc
	consumed      chan error

	mu       sync.Mutex
	refusals map[string]int   // what Publish said, by sentinel
	attempts map[string][]int // the numbers of each message's attempts
}

// pipeline opens one that closes with the row.
func (r *rig) pipeline(s setup) *pipeline {
	r.Helper()
	p := &pipeline{rig: r, setup: s, log: &logbook{most: rowEntries}, metrics: metrics.NewCollector(metrics.CollectorConfig{}),
		refusals: map[string]int{}, attempts: map[string][]int{}}
	if s.lean {
		p.log.most = leanEntries
	}
	if p.setup.amqp == "" {
		p.setup.amqp = r.broker.URL()
	}
	if p.setup.redis == "" {
		p.setup.redis = r.redis.URL()
	}
	if p.setup.timeout == 0 {
		p.setup.timeout = 10 * time.Second
	}
	p.body.Store(200)
	p.handleWith(s.handler)
	r.later(func() {
		if r.Failed() {
			r.Logf("%s\nrefusals: %v\nthe log ends with:\n%s", p.ledger.Report(), p.refused(), p.log.tail(60))
		}
	})
	p.openTransport()
	if s.database != nil {
		p.records = r.records(*s.database)
	}
	p.openStore()
	p.publishOver(p.transport)
	if p.setup.letters == nil {
		p.setup.letters = dlq.NewMemory(dlq.MemoryConfig{})
	}
	p.manager = dlq.NewManager(p.setup.letters, p.publisher.Load(), dlq.Config{Metrics: p.metrics, Logger: p.log.logger()})
	p.letters = &failingLetters{DeadLetterer: p.manager}
	if !s.noConsumer {
		p.consume()
	}
	return p
}

func (p *pipeline) openTransport() {
	p.Helper()
	p.config = rabbitmq.Config{
		URL: p.setup.amqp, Name: servers.Unique(p.T), PublishConnections: lanes, Window: window,
		DialTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, Heartbeat: 5 * time.Second,
		MaxReconnectDelay: time.Second, Logger: p.log.logger(),
	}
	if p.setup.transport != nil {
		p.setup.transport(&p.config)
	}
	transport := p.open(p.config)
	p.transport = transport
	topology := transport.Topology()
	broker := p.setup.amqp
	p.later(func() {
		if err := forget(broker, topology); err != nil {
			p.Errorf("queues left behind: %v", err)
		}
	})
	p.later(func() { p.ends("Transport.Close", transport.Close) })
}

// open opens a transport, which somebody else closes.
func (p *pipeline) open(config rabbitmq.Config) *rabbitmq.Transport {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	transport, err := rabbitmq.Open(ctx, config)
	require.NoError(p, err)
	return transport
}

// publishOver makes the traffic go over that transport from here on.
func (p *pipeline) publishOver(transport *rabbitmq.Transport) {
	p.Helper()
	config := delivery.PublisherConfig{
		Metrics: p.metrics, Logger: p.log.logger(), MaxBodyBytes: p.setup.maxBody, PendingGrace: p.setup.pendingGrace,
	}
	if p.records != nil {
		config.Store = p.records
	}
	publisher, err := delivery.NewPublisher(transport, config)
	require.NoError(p, err)
	p.later(func() {
		p.ends("Publisher.Close", func() error { return publisher.Close(context.WithoutCancel(p.ctx)) })
	})
	p.publisher.Store(publisher)
}

// raw runs f with a channel of the bare client.
func (p *pipeline) raw(f func(*amqp.Channel)) {
	p.Helper()
	conn, err := amqp.Dial(p.setup.amqp)
	require.NoError(p, err)
	defer conn.Close() //nolint:errcheck // nothing is expected of it any more
	channel, err := conn.Channel()
	require.NoError(p, err)
	f(channel)
}

func (p *pipeline) openStore() {
	p.Helper()
	client, err := redisstore.NewClient(p.setup.redis)
	require.NoError(p, err)
	p.client = client
	store := redisstore.New(client, redisstore.Config{Prefix: p.config.Name + ":"})
	p.store = &tappedStore{Store: store, afterComplete: p.setup.onCompleted}
	if p.setup.keys {
		p.store.Store = p.records.Keys()
	}
	p.later(func() {
		assert.NoError(p, store.Close())
		assert.NoError(p, client.Close())
	})
}

// forget removes what the row made in the broker, so that the next restart is
// not slower for it.
func forget(url string, topology rabbitmq.Topology) error {
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

// consume starts a consumer. The one before it must have been stopped.
func (p *pipeline) consume() {
	p.Helper()
	transport := delivery.Transport(p.transport)
	if p.setup.onAck != nil {
		transport = &tappedTransport{Transport: p.transport, onAck: p.setup.onAck}
	}
	config := delivery.ConsumerConfig{
		Concurrency: concurrency, Prefetch: prefetch,
		HandlerTimeout: patience, DrainTimeout: 20 * time.Second,
		Retry:       retry.Exponential{Base: time.Second, MaxRetries: 3},
		Idempotency: p.store, IdempotencyLease: 15 * time.Second, IdempotencyWindow: 30 * time.Minute,
		// A large sample: handlers that fail for some messages must not open it.
		Breaker:     breaker.New(breaker.Config{Name: "handler", SampleSize: 500, OpenFor: time.Second}),
		DeadLetters: p.letters, Metrics: p.metrics, Logger: p.log.logger(),
	}
	switch {
	case p.records != nil && p.setup.onUpdate != nil:
		config.Store = &tappedRecords{Store: p.records.Store, onUpdate: p.setup.onUpdate}
	case p.records != nil:
		config.Store = p.records
	}
	if p.setup.consumer != nil {
		p.setup.consumer(&config)
	}
	consumer, err := delivery.NewConsumer(transport, p.handle, config)
	require.NoError(p, err)
	p.consumer = consumer
	ctx, cancel := context.WithCancel(context.Background())
	consumed := make(chan error, 1)
	go func() { consumed <- consumer.Run(ctx) }()
	p.stopConsuming, p.consumed = cancel, consumed
	p.later(p.unconsume)
}

// unconsume stops the consumer and waits for its drain.
func (p *pipeline) unconsume() {
	if p.stopConsuming == nil {
		return
	}
	p.stopConsuming()
	p.stopConsuming = nil
	p.ends("Consumer.Run", func() error { return <-p.consumed })
}

// ends runs something that must come to an end by itself.
func (p *pipeline) ends(what string, do func() error) {
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

// handleWith makes another function run before the effect, or none.
func (p *pipeline) handleWith(handler delivery.Handler) { p.handler.Store(&handler) }

func (p *pipeline) handle(ctx context.Context, m delivery.Message) error {
	now := p.running.Add(1)
	defer p.running.Add(-1)
	for peak := p.peak.Load(); now > peak && !p.peak.CompareAndSwap(peak, now); {
		peak = p.peak.Load()
	}
	attempt, _ := delivery.AttemptFrom(ctx)
	p.mu.Lock()
	if !p.setup.lean {
		p.attempts[m.ID] = append(p.attempts[m.ID], attempt.Number)
	}
	p.mu.Unlock()
	if handler := p.handler.Load(); *handler != nil {
		if err := (*handler)(ctx, m); err != nil {
			return err
		}
	}
	p.books.Effect(m.ID)
	p.effects.Add(1)
	return nil
}

// traffic starts to publish, until stop.
func (p *pipeline) traffic() {
	p.stopping = make(chan struct{})
	p.round++
	stopping, round := p.stopping, p.round
	for caller := range callers {
		p.publishing.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stopping:
					return
				case <-p.ctx.Done():
					return
				case <-tick.C:
				}
				p.publish(p.messages(fmt.Sprintf("%d-%d-%d", round, caller, i), batchSize)...)
			}
		})
	}
	p.later(p.stop)
}

// stop ends the traffic when what it began is published.
func (p *pipeline) stop() {
	if p.stopping != nil {
		close(p.stopping)
		p.stopping = nil
	}
	p.publishing.Wait()
}

// messages makes n of them, of all priorities.
func (p *pipeline) messages(name string, n int) []delivery.Message {
	made := make([]delivery.Message, n)
	for i := range made {
		made[i] = delivery.Message{
			ID:        fmt.Sprintf("%02d-%s-%d", p.row.number, name, i),
			Recipient: "you", Body: make([]byte, p.body.Load()),
			Priority: delivery.Priorities()[i%4],
		}
	}
	return made
}

// publish publishes until all is accepted, each time with the same IDs.
func (p *pipeline) publish(batch ...delivery.Message) {
	for len(batch) > 0 && p.ctx.Err() == nil {
		batch = p.publishOnce(batch...)
		if len(batch) > 0 {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-p.ctx.Done():
			}
		}
	}
}

// publishOnce returns what was not accepted.
func (p *pipeline) publishOnce(batch ...delivery.Message) (rest []delivery.Message) {
	results := p.try(p.setup.timeout, batch...)
	for i := range batch {
		if results[i] != nil {
			rest = append(rest, batch[i])
		}
	}
	return rest
}

// try publishes once, keeps the books, and returns each message's error.
func (p *pipeline) try(timeout time.Duration, batch ...delivery.Message) []error {
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	begin := time.Now()
	err := p.publisher.Load().Publish(ctx, batch...)
	if late := time.Since(begin) - timeout; late > grace {
		p.Errorf("Publish returned %s after its deadline", late)
	}
	results := make([]error, len(batch))
	var each *delivery.ResultsError
	switch {
	case errors.As(err, &each):
		for i, result := range each.Results {
			results[i] = result.Err
		}
	case err != nil:
		for i := range results {
			results[i] = err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, err := range results {
		if err == nil {
			p.books.Sent(batch[i].ID)
			p.latest.Store(max(p.latest.Load(), begin.UnixNano()))
			p.accepted.Add(1)
			continue
		}
		for _, kind := range kinds(err) {
			p.refusals[kind]++
		}
	}
	return results
}

// kinds names the sentinels that an error of Publish matches.
func kinds(err error) []string {
	var names []string
	for name, sentinel := range map[string]error{
		"unknown": delivery.ErrOutcomeUnknown, "blocked": delivery.ErrBlocked, "refused": delivery.ErrRefused,
		"unroutable": delivery.ErrUnroutable, "too large": delivery.ErrTooLarge, "closed": delivery.ErrClosed,
		"store down":       delivery.ErrStoreDown,
		"not sent in time": context.DeadlineExceeded,
	} {
		if errors.Is(err, sentinel) {
			names = append(names, name)
		}
	}
	if names == nil {
		return []string{"other: " + err.Error()}
	}
	return names
}

// acceptedSince says whether a Publish that began after that was accepted. Those
// that had begun before may have been confirmed by then, and hear it later.
func (p *pipeline) acceptedSince(begin time.Time) bool {
	return p.latest.Load() > begin.UnixNano()
}

// refusedAs is how many messages Publish did not accept, by the sentinel's name.
func (p *pipeline) refusedAs(kind string) int { return p.refused()[kind] }

func (p *pipeline) refused() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.refusals)
}

// attemptsOf is which attempts of a message the handler saw, in order.
func (p *pipeline) attemptsOf(id string) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.attempts[id])
}

// attemptsCounted is how many messages were seen with a counted attempt behind.
func (p *pipeline) attemptsCounted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := 0
	for _, numbers := range p.attempts {
		if slices.Max(numbers) > 1 {
			count++
		}
	}
	return count
}

// flows waits until so many more messages were accepted and had their effect.
func (p *pipeline) flows(n int64) {
	p.Helper()
	accepted, effects := p.accepted.Load()+n, p.effects.Load()+n
	p.eventually(func() bool { return p.accepted.Load() >= accepted && p.effects.Load() >= effects },
		"messages don't flow")
}

// finish publishes the rest of a few thousand messages, waits until all have
// come to an end, and stops the consumer.
func (p *pipeline) finish() {
	p.Helper()
	p.eventually(func() bool { return p.accepted.Load() >= fewThousand }, "too few messages are accepted")
	p.stop()
	p.drain()
	p.unconsume()
}

// drain waits until nothing is queued, and the dead letters are in the books.
func (p *pipeline) drain() {
	p.Helper()
	p.within(2*time.Minute, func() bool {
		p.bookLetters()
		return len(p.ledger.Report().Lost) == 0
	}, "published messages have no end")
	// What is left are second copies, and they show as duplicates if anywhere.
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
	p.bookLetters()
}

// bookLetters writes the dead letters into the ledger. Of a malformed message
// the body is its name.
func (p *pipeline) bookLetters() {
	p.Helper()
	for _, letter := range p.deadLetters() {
		if letter.Reason == delivery.ReasonMalformed {
			p.ledger.DeadLetter(string(letter.Raw))
		} else {
			p.ledger.DeadLetter(letter.Envelope.ID)
		}
	}
}

func (p *pipeline) deadLetters() []dlq.Entry {
	p.Helper()
	var all []dlq.Entry
	query := dlq.Query{Limit: dlq.MaxLimit}
	for {
		page, err := p.manager.List(p.ctx, query)
		require.NoError(p, err)
		all = append(all, page.Entries...)
		if query.Cursor = page.Next; page.Next == "" {
			return all
		}
	}
}

// counted is a counter's total.
func (p *pipeline) counted(name string, labels ...string) int {
	value, _ := p.metrics.Value(name, labels...)
	return int(value)
}

// outcome is how many receipts came to that.
func (p *pipeline) outcome(outcome string) int {
	return p.counted(metrics.MessagesProcessedTotal, metrics.LabelOutcome, outcome)
}

// answered is how often the idempotency store said so.
func (p *pipeline) answered(result string) int {
	return p.counted(metrics.IdempotencyTotal, metrics.LabelResult, result)
}

// copies checks that the broker and the publisher made no more second copies
// than were at stake in that many breaks. The idempotency store swallows them.
func (p *pipeline) copies(breaks int) {
	p.Helper()
	copies := p.answered(metrics.IdempotencyDuplicate) + p.answered(metrics.IdempotencyStale)
	assert.LessOrEqual(p, copies, breaks*atStake, "more second copies than W + U = %d for each of %d breaks", atStake, breaks)
	p.note("%d second copies suppressed (W + U = %d)", copies, breaks*atStake)
}

// holdUp waits until the pipeline acks nothing any more, and checks that it stays
// so for a time.
func (p *pipeline) holdUp(d time.Duration) {
	p.Helper()
	p.stands(func() int { return p.outcome(metrics.OutcomeDelivered) + p.outcome(metrics.OutcomeDuplicate) },
		70, d, "messages acked meanwhile")
}

// stands waits until a number has not changed for so many looks, 10 ms apart,
// which what was under way may take, and checks that it stays so for a time. A
// machine that is too busy for us to look is too busy for the number to change.
func (p *pipeline) stands(number func() int, looks int, d time.Duration, otherwise string) {
	p.Helper()
	last, same := number(), 0
	p.eventually(func() bool {
		if now := number(); now != last {
			last, same = now, 0
		}
		same++
		return same > looks
	}, otherwise)
	p.wait(d)
	assert.Equal(p, last, number(), otherwise)
}

// disconnects is how often a connection was lost, for publishing, consuming, or
// both.
func (p *pipeline) disconnects(purpose string) int {
	return p.log.count("rabbitmq_disconnected", strings.TrimSpace("purpose="+purpose))
}
