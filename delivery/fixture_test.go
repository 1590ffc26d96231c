package delivery_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// fixture is everything that a message meets, inside a synctest bubble. Each part
// can be made to fail. The fixture remembers the handler's runs.
type fixture struct {
	t         *testing.T
	transport *faultyTransport // in memory
	outlet    *sendOnly        // a transport that nobody receives from
	store     *faultyStore     // of idempotency keys
	records   *faultyRecords
	sink      *deadLetters
	collector *metrics.Collector
	log       *logText
	publisher *delivery.Publisher

	mu   sync.Mutex
	runs map[string][]delivery.Attempt
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{
		t:         t,
		transport: &faultyTransport{Transport: memory.New(memory.Config{})},
		outlet:    &sendOnly{},
		store:     &faultyStore{Store: idempotency.NewMemory(idempotency.MemoryConfig{})},
		records:   newRecords(),
		sink:      newDeadLetters(),
		collector: metrics.NewCollector(metrics.CollectorConfig{}),
		log:       &logText{},
		runs:      map[string][]delivery.Attempt{},
	}
	f.publisher = f.newPublisher(delivery.PublisherConfig{Metrics: f.collector})
	return f
}

// bubble runs test in a synctest bubble, with time of its own.
func bubble(t *testing.T, test func(f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		test(f)
		require.NoError(t, f.transport.Close())
	})
}

// config is what most tests want: three retries after 1, 2 and 4 seconds.
func (f *fixture) config() delivery.ConsumerConfig {
	return delivery.ConsumerConfig{
		Retry:       retry.Exponential{Base: time.Second, MaxRetries: 3},
		Idempotency: f.store,
		DeadLetters: f.sink,
		Metrics:     f.collector,
	}
}

// consume starts a consumer. The returned function ends it and gives Run's error.
func (f *fixture) consume(handler delivery.Handler, config delivery.ConsumerConfig) (consumer *delivery.Consumer, stop func() error) {
	f.t.Helper()
	return f.consumeFrom(f.transport, handler, config)
}

// withoutDelays is a transport that can't hold messages back.
type withoutDelays struct{ delivery.Transport }

func (f *fixture) consumeFrom(transport delivery.Transport, handler delivery.Handler, config delivery.ConsumerConfig) (consumer *delivery.Consumer, stop func() error) {
	f.t.Helper()
	counting := func(ctx context.Context, message delivery.Message) error {
		attempt, ok := delivery.AttemptFrom(ctx)
		if !ok {
			return errors.New("no attempt in the context")
		}
		f.mu.Lock()
		f.runs[message.ID] = append(f.runs[message.ID], attempt)
		f.mu.Unlock()
		return handler(ctx, message)
	}
	consumer, err := delivery.NewConsumer(transport, counting, config)
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	return consumer, sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

func (f *fixture) newPublisher(config delivery.PublisherConfig) *delivery.Publisher {
	f.t.Helper()
	publisher, err := delivery.NewPublisher(f.transport, config)
	require.NoError(f.t, err)
	return publisher
}

// outboxed gives the fixture a publisher with its store of records.
func (f *fixture) outboxed(config delivery.PublisherConfig) *faultyRecords {
	f.t.Helper()
	config.Store = f.records
	f.publisher = f.newPublisher(config)
	return f.records
}

// recordsOnly gives the fixture a publisher with its store of records, on which no
// retry worker runs.
func (f *fixture) recordsOnly() *faultyRecords {
	f.t.Helper()
	f.publisher = f.newPublisher(delivery.PublisherConfig{Store: delivery.RecordsOnly(f.records)})
	return f.records
}

func (f *fixture) publish(messages ...delivery.Message) {
	f.t.Helper()
	require.NoError(f.t, f.publisher.Publish(context.Background(), messages...))
}

// workerConfig has two retries, after 10 and 20 seconds.
func (f *fixture) workerConfig() delivery.RetryWorkerConfig {
	return delivery.RetryWorkerConfig{
		Retry:       retry.Exponential{Base: 10 * time.Second, MaxRetries: 2},
		DeadLetters: f.sink,
		Metrics:     f.collector,
		Logger:      slog.New(slog.NewTextHandler(f.log, nil)),
	}
}

func (f *fixture) newWorker(store delivery.Store, transport delivery.Transport, config delivery.RetryWorkerConfig) *delivery.RetryWorker {
	f.t.Helper()
	worker, err := delivery.NewRetryWorker(store, transport, config)
	require.NoError(f.t, err)
	return worker
}

// work starts a worker that sends by the outlet. The returned function ends it and
// waits.
func (f *fixture) work(config delivery.RetryWorkerConfig) (stop func()) {
	f.t.Helper()
	return f.run(f.newWorker(f.records, f.outlet, config))
}

// workOnce has a worker that sends by the outlet do what is due.
func (f *fixture) workOnce(config delivery.RetryWorkerConfig) error {
	f.t.Helper()
	return f.newWorker(f.records, f.outlet, config).RunOnce(context.Background())
}

func (f *fixture) run(worker *delivery.RetryWorker) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(f.t, <-done)
	})
	f.t.Cleanup(stop) // a test that fails early leaves nobody at work
	return stop
}

// attempts lists the attempt numbers of a message's runs.
func (f *fixture) attempts(id string) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var numbers []int
	for _, run := range f.runs[id] {
		numbers = append(numbers, run.Number)
	}
	return numbers
}

func (f *fixture) processed(outcome string) int {
	value, _ := f.collector.Value(metrics.MessagesProcessedTotal, metrics.LabelOutcome, outcome)
	return int(value)
}

func (f *fixture) ackTimeouts() int {
	value, _ := f.collector.Value(metrics.AckTimeoutsTotal)
	return int(value)
}

func (f *fixture) up(dependency string) bool {
	value, _ := f.collector.Value(metrics.DependencyUp, metrics.LabelDependency, dependency)
	return value > 0
}

// waiting is how many messages of normal priority wait in the transport.
func (f *fixture) waiting() int64 {
	f.t.Helper()
	depths, err := f.transport.Depth(context.Background())
	require.NoError(f.t, err)
	return depths[delivery.Normal].Messages
}

// empty asserts that nothing is left in the transport.
func (f *fixture) empty() {
	f.t.Helper()
	depths, err := f.transport.Depth(context.Background())
	require.NoError(f.t, err)
	for priority, depth := range depths {
		require.Zero(f.t, depth.Messages, "%s", priority)
	}
}

// save, get and update work on the records even while their store is down.
func (f *fixture) save(records ...delivery.Record) {
	f.t.Helper()
	require.Nil(f.t, f.records.Store.Save(context.Background(), records...))
}

func (f *fixture) get(id string) delivery.Record {
	f.t.Helper()
	records, errs := f.records.Store.Get(context.Background(), id)
	require.Nil(f.t, errs)
	return records[0]
}

func (f *fixture) update(update delivery.Update) {
	f.t.Helper()
	_, errs := f.records.Store.Update(context.Background(), update)
	require.Nil(f.t, errs)
}

func to(id string) delivery.Message {
	return delivery.Message{ID: id, Recipient: "+966500000001"}
}

// stored is a record as it would be in a store.
func stored(id string, status delivery.Status, due time.Time) delivery.Record {
	record := delivery.Record{Message: to(id), Progress: delivery.Progress{Queue: "memory", Status: status, DueAt: due}}
	record.CreatedAt, record.UpdatedAt = time.Now(), time.Now()
	switch status {
	case delivery.StatusRetrying:
		record.NextRetryAt, record.RetryCount = due, 1
		record.History = []delivery.Failure{{At: time.Now().UTC(), Attempt: 1, Error: "busy"}}
	case delivery.StatusSent:
		record.RequireAck, record.SentAt, record.AckDeadline = true, time.Now(), due
	default:
	}
	return record
}

// failedAttempt is the update by which an attempt that failed now is counted.
func failedAttempt(record *delivery.Record, status delivery.Status, due time.Time) delivery.Update {
	now := time.Now()
	return delivery.Update{
		ID: record.ID, Status: status, Generation: record.Generation, RetryCount: record.RetryCount + 1, At: now, DueAt: due,
		Failure: &delivery.Failure{At: now, Attempt: record.RetryCount + 1, Error: "busy"},
	}
}

// acknowledged is the update by which the end user has got a message.
func acknowledged(id string) delivery.Update {
	return delivery.Update{ID: id, Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true}
}

func fine(context.Context, delivery.Message) error { return nil }

// wait lets the bubble's time pass.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
