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

// soonEnough is for what happens soon, on a busy machine.
const soonEnough = 30 * time.Second

// place is where messages flow: a database, and the transport beside it.
type place struct {
	name    string
	connect func(testing.TB) *sql.DB
	queues  func(testing.TB) (join func(testing.TB) flowTransport)
}

// flowTransport is a process's transport.
type flowTransport interface {
	delivery.Transport
	delivery.Depther
}

func places() []place {
	return []place{
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
	config := rabbitmq.Config{URL: shared.AMQP(tb), Name: servers.Unique(tb), Topology: smallQuorum, Lanes: 1}
	return func(tb testing.TB) flowTransport {
		tb.Helper()
		transport, err := rabbitmq.Open(tb.Context(), config)
		require.NoError(tb, err)
		return transport
	}
}

// smallQuorum is rabbitmq.Quorum with a delay ladder of three levels, 7 s: each
// level is a replicated queue that takes its time to be made.
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

// world is what outlives the processes of a host: its database, its queues, and
// what its handler has seen.
type world struct {
	t      *testing.T
	db     *sql.DB
	prefix string
	join   func(testing.TB) flowTransport
	store  *sqlstore.Store // to look at

	mu     sync.Mutex
	runs   map[string]int // of the handler, by message
	handle func(m delivery.Message, run int) error
}

func newWorld(t *testing.T, at place, join func(testing.TB) flowTransport) *world {
	t.Helper()
	return newWorldOn(t, at.connect(t), join)
}

func newWorldOn(t *testing.T, db *sql.DB, join func(testing.TB) flowTransport) *world {
	t.Helper()
	w := &world{t: t, db: db, prefix: unique(t), join: join, runs: map[string]int{}}
	w.store = open(t, w.db, sqlstore.Config{TablePrefix: w.prefix})
	return w
}

// everywhere runs the test in each place.
func everywhere(t *testing.T, test func(*world)) {
	for _, at := range places() {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			test(newWorld(t, at, at.queues(t)))
		})
	}
}

func (w *world) handler(_ context.Context, m delivery.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs[m.ID]++
	if w.handle == nil {
		return nil
	}
	return w.handle(m, w.runs[m.ID])
}

// handles says what the handler does from now on.
func (w *world) handles(handle func(m delivery.Message, run int) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handle = handle
}

func (w *world) ran(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs[id]
}

func (w *world) record(id string) delivery.Record {
	records, errs := w.store.Get(context.Background(), id)
	if errs != nil {
		assert.ErrorIs(w.t, errs[0], delivery.ErrNotFound)
	}
	return records[0]
}

func (w *world) missing(ids ...string) {
	w.t.Helper()
	_, errs := w.store.Get(w.t.Context(), ids...)
	require.Len(w.t, errs, len(ids))
	for _, err := range errs {
		require.ErrorIs(w.t, err, delivery.ErrNotFound)
	}
}

func (w *world) total() int {
	w.t.Helper()
	stats, err := w.store.Stats(w.t.Context())
	require.NoError(w.t, err)
	return stats.Total
}

// await returns the record once the message has the status.
func (w *world) await(id string, status delivery.Status) delivery.Record {
	w.t.Helper()
	w.soon(func() bool { return w.record(id).Status == status }, "%s becomes %s", id, status)
	return w.record(id)
}

func (w *world) soon(happened func() bool, format string, args ...any) {
	w.t.Helper()
	require.Eventuallyf(w.t, happened, soonEnough, 5*time.Millisecond, format, args...)
}

func (w *world) letters() []dlq.Entry {
	w.t.Helper()
	page, err := w.store.DeadLetters().List(w.t.Context(), dlq.Query{Limit: dlq.MaxLimit})
	require.NoError(w.t, err)
	require.Empty(w.t, page.Next)
	return page.Entries
}

// flowConfig is what a test says about its host.
type flowConfig struct {
	publisher delivery.PublisherConfig
	consumer  delivery.ConsumerConfig
	worker    delivery.RetryWorkerConfig
	settings  *delivery.Settings // govern the others if they are there
}

// brisk retries soon and twice, and waits for acknowledgments for long.
func brisk() flowConfig {
	policy := retry.Exponential{Base: 20 * time.Millisecond, MaxRetries: 2, Jitter: retry.JitterNone}
	return flowConfig{
		publisher: delivery.PublisherConfig{PendingGrace: time.Second},
		consumer:  delivery.ConsumerConfig{Retry: policy, ImmediateRetries: -1, AckTimeout: time.Minute, Concurrency: 4},
		worker:    delivery.RetryWorkerConfig{Retry: policy},
	}
}

// govern has settings their way, in a shorter time.
func (c *flowConfig) govern(settings *delivery.Settings) {
	c.publisher = settings.Publisher(c.publisher)
	c.consumer = settings.Consumer(c.consumer)
	c.worker = settings.RetryWorker(c.worker)
	for _, policy := range []*retry.Policy{&c.consumer.Retry, &c.worker.Retry} {
		if exponential, ok := (*policy).(retry.Exponential); ok {
			exponential.Base = time.Duration(settings.BaseRetryDelaySeconds) * time.Second / 5
			*policy = exponential
		}
	}
	if c.consumer.AckTimeout > 0 {
		c.consumer.AckTimeout = time.Duration(settings.AcknowledgmentTimeoutMinutes) * time.Second / 2
	}
}

// host is a process that has it all.
type host struct {
	*world
	config    flowConfig
	store     *sqlstore.Store
	transport flowTransport
	publisher *delivery.Publisher
	letters   *dlq.Manager
	acks      *delivery.Acknowledger

	endings []func()
}

// start starts a process, which publishes. It ends with the test at the latest.
func (w *world) start(config flowConfig) *host {
	w.t.Helper()
	return w.startOn(w.db, config)
}

func (w *world) startOn(db *sql.DB, config flowConfig) *host {
	t := w.t
	t.Helper()
	h := &host{world: w, transport: w.join(t)}
	t.Cleanup(h.stop)
	h.endings = append(h.endings, func() { assert.NoError(t, h.transport.Close()) })
	var err error
	h.store, err = sqlstore.Open(t.Context(), db, sqlstore.Config{TablePrefix: w.prefix})
	require.NoError(t, err)
	h.endings = append(h.endings, func() { assert.NoError(t, h.store.Close()) })
	config.publisher.Store = h.store
	config.consumer.Store, config.consumer.Idempotency = h.store, h.store.Keys()
	if config.settings != nil {
		config.publisher.Idempotency = h.store.Keys()
		config.govern(config.settings)
	}
	h.publisher, err = delivery.NewPublisher(h.transport, config.publisher)
	require.NoError(t, err)
	h.endings = append(h.endings, func() { assert.NoError(t, h.publisher.Close(context.Background())) })
	h.letters = dlq.NewManager(h.store.DeadLetters(), h.publisher, dlq.Config{})
	config.consumer.DeadLetters, config.worker.DeadLetters = h.letters, h.letters
	h.acks, err = delivery.NewAcknowledger(h.store, delivery.AcknowledgerConfig{DeadLetters: h.letters})
	require.NoError(t, err)
	h.config = config
	return h
}

// work has the process retry, replay and consume, too. The function ends the
// consuming alone.
func (h *host) work() (endConsumer func()) {
	h.t.Helper()
	workers := []func(context.Context) error{h.letters.RunJobs}
	if s := h.config.settings; s == nil || s.Features.RetryWorker {
		worker, err := delivery.NewRetryWorker(h.store, h.transport, h.config.worker)
		require.NoError(h.t, err)
		workers = append(workers, worker.Run)
	}
	consumer, err := delivery.NewConsumer(h.transport, h.handler, h.config.consumer)
	require.NoError(h.t, err)
	h.background(workers...)
	return h.background(consumer.Run)
}

// run starts a process that works.
func (w *world) run(config flowConfig) *host {
	w.t.Helper()
	h := w.start(config)
	h.work()
	return h
}

func (h *host) background(runs ...func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, run := range runs {
		all.Go(func() {
			if err := run(ctx); ctx.Err() == nil || !errors.Is(err, context.Canceled) { // before it had begun
				assert.NoError(h.t, err)
			}
		})
	}
	end = sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
	h.endings = append(h.endings, end)
	return end
}

// stop ends the process as it should: what was begun last first.
func (h *host) stop() {
	for _, end := range slices.Backward(h.endings) {
		end()
	}
	h.endings = nil
}

// idle waits until nothing waits in the transport.
func (h *host) idle() {
	h.t.Helper()
	h.soon(func() bool {
		depths, err := h.transport.Depth(context.Background())
		for _, depth := range depths {
			if depth.Messages > 0 {
				return false
			}
		}
		return assert.NoError(h.t, err)
	}, "the transport is empty")
}

func (h *host) publish(messages ...delivery.Message) {
	h.t.Helper()
	require.NoError(h.t, h.publisher.Publish(h.t.Context(), messages...))
}

func flowing(id string) delivery.Message {
	return delivery.Message{
		ID: id, Recipient: "+966500000001", Subject: "s", Type: "order.created", Body: []byte("\x00body\xff"),
		ContentType: "text/plain", Headers: map[string]string{"trace": "1"}, Priority: delivery.High,
	}
}

var errProvider = errors.New("provider is down")
