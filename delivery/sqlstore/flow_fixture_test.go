package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry"
)

// eventuallyTimeout is how long a test waits for what has to happen, on a busy
// machine.
const eventuallyTimeout = time.Minute

// backend is a database, and the transport beside it.
type backend struct {
	name    string
	connect func(testing.TB) *sql.DB
	queues  func(testing.TB) (join func(testing.TB) flowTransport)
}

// flowTransport is the transport of a process.
type flowTransport interface {
	delivery.Transport
	delivery.Depther
}

func backends() []backend {
	return []backend{
		{"SQLite and memory", connectSQLite, memoryQueues},
		{"PostgreSQL and memory", connectPostgres, memoryQueues},
		{"SQLite and RabbitMQ", connectSQLite, rabbitQueues},
		{"PostgreSQL and RabbitMQ", connectPostgres, rabbitQueues},
	}
}

func memoryQueues(tb testing.TB) func(testing.TB) flowTransport {
	tb.Helper()
	queues := memory.New(memory.Config{})
	tb.Cleanup(func() { assert.NoError(tb, queues.Close()) })
	return func(testing.TB) flowTransport { return queues.Another() }
}

func rabbitQueues(tb testing.TB) func(testing.TB) flowTransport {
	tb.Helper()
	config := rabbitmq.Config{URL: shared.AMQP(tb), Name: servers.Unique(tb), Topology: smallQuorum, PublishConnections: 1}
	return func(tb testing.TB) flowTransport {
		tb.Helper()
		transport, err := rabbitmq.Open(tb.Context(), config)
		require.NoError(tb, err)
		return transport
	}
}

// smallQuorum is rabbitmq.Quorum with a delay ladder of three levels, 7 s,
// because each level is a replicated queue that takes time to make.
func smallQuorum(name string, server rabbitmq.Version) rabbitmq.Topology {
	const levels = 3
	t := rabbitmq.Quorum(name, server)
	above := t.Delays[levels:]
	digits := strings.Repeat("*.", len(above))
	t.Delays = t.Delays[:levels]
	t.Exchanges = slices.DeleteFunc(t.Exchanges, func(e rabbitmq.Exchange) bool { return slices.Contains(above, e.Name) })
	t.Queues = slices.DeleteFunc(t.Queues, func(q rabbitmq.Queue) bool { return slices.Contains(above, q.Name) })
	t.Bindings = slices.DeleteFunc(t.Bindings, func(b rabbitmq.Binding) bool { return slices.Contains(above, b.Source) })
	for i := range t.Bindings {
		t.Bindings[i].Key = strings.TrimPrefix(t.Bindings[i].Key, digits)
	}
	return t
}

// fixture is what outlives the processes of a host: the database, the queues,
// and what the handler has seen.
type fixture struct {
	t      *testing.T
	db     *sql.DB
	prefix string
	join   func(testing.TB) flowTransport
	store  *sqlstore.Store // to look at

	mu     sync.Mutex
	runs   map[string]int // of the handler, by message
	handle func(m delivery.Message, run int) error
}

func newFixture(t *testing.T, at backend, join func(testing.TB) flowTransport) *fixture {
	t.Helper()
	return newFixtureOn(t, at.connect(t), join)
}

func newFixtureOn(t *testing.T, db *sql.DB, join func(testing.TB) flowTransport) *fixture {
	t.Helper()
	f := &fixture{t: t, db: db, prefix: unique(t), join: join, runs: map[string]int{}}
	f.store = open(t, f.db, sqlstore.Config{TablePrefix: f.prefix})
	return f
}

// onEveryBackend runs the test on each backend.
func onEveryBackend(t *testing.T, test func(*fixture)) {
	for _, at := range backends() {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			test(newFixture(t, at, at.queues(t)))
		})
	}
}

func (f *fixture) handler(_ context.Context, m delivery.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs[m.ID]++
	if f.handle == nil {
		return nil
	}
	return f.handle(m, f.runs[m.ID])
}

// setHandler sets what the handler does from now on.
func (f *fixture) setHandler(handle func(m delivery.Message, run int) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handle = handle
}

func (f *fixture) runsOf(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[id]
}

func (f *fixture) record(id string) delivery.Record {
	records, errs := f.store.Get(context.Background(), id)
	if errs != nil {
		assert.ErrorIs(f.t, errs[0], delivery.ErrNotFound)
	}
	return records[0]
}

func (f *fixture) missing(ids ...string) {
	f.t.Helper()
	_, errs := f.store.Get(f.t.Context(), ids...)
	require.Len(f.t, errs, len(ids))
	for _, err := range errs {
		require.ErrorIs(f.t, err, delivery.ErrNotFound)
	}
}

func (f *fixture) total() int {
	f.t.Helper()
	stats, err := f.store.Stats(f.t.Context(), "")
	require.NoError(f.t, err)
	return stats.Total
}

// await waits for the message to have the status, and returns the record.
func (f *fixture) await(id string, status delivery.Status) delivery.Record {
	f.t.Helper()
	f.eventually(func() bool { return f.record(id).Status == status }, "%s becomes %s", id, status)
	return f.record(id)
}

func (f *fixture) eventually(happened func() bool, format string, args ...any) {
	f.t.Helper()
	require.Eventuallyf(f.t, happened, eventuallyTimeout, 5*time.Millisecond, format, args...)
}

func (f *fixture) letters() []dlq.Entry {
	f.t.Helper()
	page, err := f.store.DeadLetters().List(f.t.Context(), dlq.Query{Limit: dlq.MaxLimit})
	require.NoError(f.t, err)
	require.Empty(f.t, page.Next)
	return page.Entries
}

// flowConfig is the config of a process.
type flowConfig struct {
	publisher delivery.PublisherConfig
	consumer  delivery.ConsumerConfig
	worker    delivery.RetryWorkerConfig
	settings  *delivery.Settings // are applied to the others, unless nil
}

// quickConfig has two retries that come soon, and a long time for
// acknowledgments.
func quickConfig() flowConfig {
	policy := retry.Exponential{Base: 20 * time.Millisecond, MaxRetries: 2, Jitter: retry.JitterNone}
	return flowConfig{
		publisher: delivery.PublisherConfig{PendingGrace: time.Second},
		consumer:  delivery.ConsumerConfig{Retry: policy, ImmediateRetries: -1, AckTimeout: time.Minute, Concurrency: 4},
		worker:    delivery.RetryWorkerConfig{Retry: policy},
	}
}

// apply applies settings, with shorter times.
func (c *flowConfig) apply(settings *delivery.Settings) {
	c.publisher = settings.Publisher(c.publisher)
	c.consumer = settings.Consumer(c.consumer)
	c.worker = settings.RetryWorker(c.worker)
	for _, policy := range []*retry.Policy{&c.consumer.Retry, &c.worker.Retry} {
		if exponential, ok := (*policy).(retry.Exponential); ok {
			exponential.Base = settings.BaseRetryDelay / 5
			*policy = exponential
		}
	}
	if c.consumer.AckTimeout > 0 {
		c.consumer.AckTimeout = settings.AcknowledgmentTimeout / 120
	}
}

// process is a process of the host with all of its parts.
type process struct {
	*fixture
	config    flowConfig
	store     *sqlstore.Store
	transport flowTransport
	publisher *delivery.Publisher
	letters   *dlq.Manager
	acks      *delivery.Acknowledger

	endings []func()
}

// start starts a process that publishes. It ends with the test at the latest.
func (f *fixture) start(config flowConfig) *process {
	f.t.Helper()
	return f.startOn(f.db, config)
}

func (f *fixture) startOn(db *sql.DB, config flowConfig) *process {
	t := f.t
	t.Helper()
	p := &process{fixture: f, transport: f.join(t)}
	t.Cleanup(p.stop)
	p.endings = append(p.endings, func() { assert.NoError(t, p.transport.Close()) })
	var err error
	p.store, err = sqlstore.Open(t.Context(), db, sqlstore.Config{TablePrefix: f.prefix})
	require.NoError(t, err)
	p.endings = append(p.endings, func() { assert.NoError(t, p.store.Close()) })
	config.publisher.Store = p.store
	config.consumer.Store, config.consumer.Idempotency = p.store, p.store.Keys()
	if config.settings != nil {
		config.publisher.Idempotency = p.store.Keys()
		config.apply(config.settings)
	}
	p.publisher, err = delivery.NewPublisher(p.transport, config.publisher)
	require.NoError(t, err)
	p.endings = append(p.endings, func() { assert.NoError(t, p.publisher.Close(context.Background())) })
	p.letters = dlq.NewManager(p.store.DeadLetters(), p.publisher, dlq.Config{})
	config.consumer.DeadLetters, config.worker.DeadLetters = p.letters, p.letters
	p.acks, err = delivery.NewAcknowledger(p.store, delivery.AcknowledgerConfig{DeadLetters: p.letters})
	require.NoError(t, err)
	p.config = config
	return p
}

// work starts retrying, replaying and consuming. The function ends consuming
// alone.
func (p *process) work() (endConsumer func()) {
	p.t.Helper()
	workers := []func(context.Context) error{p.letters.RunJobs}
	if s := p.config.settings; s == nil || s.Features.RetryWorker {
		worker, err := delivery.NewRetryWorker(p.store, p.transport, p.config.worker)
		require.NoError(p.t, err)
		workers = append(workers, worker.Run)
	}
	consumer, err := delivery.NewConsumer(p.transport, p.handler, p.config.consumer)
	require.NoError(p.t, err)
	p.background(workers...)
	return p.background(consumer.Run)
}

// run starts a process that publishes and works.
func (f *fixture) run(config flowConfig) *process {
	f.t.Helper()
	p := f.start(config)
	p.work()
	return p
}

func (p *process) background(runs ...func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, run := range runs {
		all.Go(func() {
			if err := run(ctx); ctx.Err() == nil || !errors.Is(err, context.Canceled) { // before it had begun
				assert.NoError(p.t, err)
			}
		})
	}
	end = sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
	p.endings = append(p.endings, end)
	return end
}

// stop ends the process in order: the parts that were started last end first.
func (p *process) stop() {
	for _, end := range slices.Backward(p.endings) {
		end()
	}
	p.endings = nil
}

// idle waits until the transport holds no message.
func (p *process) idle() {
	p.t.Helper()
	p.eventually(func() bool {
		depths, err := p.transport.Depth(context.Background())
		for _, depth := range depths {
			if depth.Messages > 0 {
				return false
			}
		}
		return assert.NoError(p.t, err)
	}, "the transport is empty")
}

func (p *process) publish(messages ...delivery.Message) {
	p.t.Helper()
	require.NoError(p.t, p.publisher.Publish(p.t.Context(), messages...))
}

func testMessage(id string) delivery.Message {
	return delivery.Message{
		ID: id, Recipient: "+966500000001", Subject: "s", Type: "order.created", Body: []byte("\x00body\xff"),
		ContentType: "text/plain", Headers: map[string]string{"trace": "1"}, Priority: delivery.High,
	}
}

var errProvider = errors.New("provider is down")
