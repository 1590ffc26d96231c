package delivery_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// fixture is a pipeline inside a synctest bubble: a transport in memory whose
// parts can be made to fail, and a ledger of the handler's runs.
type fixture struct {
	t         *testing.T
	transport *faultyTransport
	store     *faultyStore
	sink      *sink
	collector *metrics.Collector
	publisher *delivery.Publisher

	mu   sync.Mutex
	runs map[string][]delivery.Attempt
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{
		t:         t,
		transport: &faultyTransport{Transport: memory.New(memory.Config{})},
		store:     &faultyStore{Store: idempotency.NewMemory(idempotency.MemoryConfig{})},
		sink:      &sink{letters: map[string]delivery.DeadLetter{}},
		collector: metrics.NewCollector(metrics.CollectorConfig{}),
		runs:      map[string][]delivery.Attempt{},
	}
	publisher, err := delivery.NewPublisher(f.transport, delivery.PublisherConfig{Metrics: f.collector})
	require.NoError(t, err)
	f.publisher = publisher
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
	consumer, err := delivery.NewConsumer(f.transport, counting, config)
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- consumer.Run(ctx) }()
	return consumer, sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

func (f *fixture) publish(messages ...delivery.Message) {
	f.t.Helper()
	require.NoError(f.t, f.publisher.Publish(context.Background(), messages...))
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

// empty asserts that nothing is left in the transport.
func (f *fixture) empty() {
	f.t.Helper()
	depths, err := f.transport.Depth(context.Background())
	require.NoError(f.t, err)
	for priority, depth := range depths {
		require.Zero(f.t, depth.Messages, "%s", priority)
	}
}

func to(id string) delivery.Message {
	return delivery.Message{ID: id, Recipient: "+966500000001"}
}

// wait lets the bubble's time pass.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

var errDown = errors.New("down")

// faultyTransport is the memory transport with switches.
type faultyTransport struct {
	*memory.Transport
	down      atomic.Bool          // sends fail
	loseAck   func(id string) bool // acks that never arrive
	broken    func(id string) bool // what can't be decoded
	onSend    func(delay time.Duration, e delivery.Envelope) error
	seen      chan<- delivery.Envelope // what is sent from when it is set
	received  atomic.Int64
	failFirst atomic.Int64 // receives to fail
}

func (t *faultyTransport) Send(ctx context.Context, batch []delivery.Envelope) []error {
	return t.SendAfter(ctx, 0, batch)
}

func (t *faultyTransport) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	if t.down.Load() {
		errs := make([]error, len(batch))
		for i := range errs {
			errs[i] = errDown
		}
		return errs
	}
	if t.onSend != nil {
		for _, envelope := range batch {
			if err := t.onSend(delay, envelope); err != nil {
				return []error{err}
			}
		}
	}
	for i := range batch {
		select {
		case t.seen <- batch[i]:
		default:
		}
	}
	return t.Transport.SendAfter(ctx, delay, batch)
}

func (t *faultyTransport) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	subscription, err := t.Transport.Subscribe(ctx, config)
	if err != nil {
		return nil, err
	}
	return &faultySubscription{Subscription: subscription, transport: t}, nil
}

type faultySubscription struct {
	delivery.Subscription
	transport *faultyTransport
}

func (s *faultySubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	if s.transport.failFirst.Add(-1) >= 0 {
		return nil, errDown
	}
	batch, err := s.Subscription.Receive(ctx)
	s.transport.received.Add(int64(len(batch)))
	wrapped := make([]delivery.Incoming, len(batch))
	for i := range batch {
		wrapped[i] = &faultyIncoming{Incoming: batch[i], transport: s.transport}
	}
	return wrapped, err
}

func (s *faultySubscription) Pause(ctx context.Context) error {
	return s.Subscription.(delivery.Pauser).Pause(ctx)
}

func (s *faultySubscription) Resume(ctx context.Context) error {
	return s.Subscription.(delivery.Pauser).Resume(ctx)
}

type faultyIncoming struct {
	delivery.Incoming
	transport *faultyTransport
}

func (i *faultyIncoming) Envelope() (*delivery.Envelope, error) {
	envelope, err := i.Incoming.Envelope()
	if err == nil && i.transport.broken != nil && i.transport.broken(envelope.ID) {
		return nil, &delivery.MalformedError{Problem: "broken", Raw: envelope.Body}
	}
	return envelope, err
}

// Ack that is lost leaves the message for redelivery, as a connection that
// breaks in that moment does.
func (i *faultyIncoming) Ack() error {
	envelope, err := i.Incoming.Envelope()
	if err == nil && i.transport.loseAck != nil && i.transport.loseAck(envelope.ID) {
		_ = i.Nack()
		return delivery.ErrStale
	}
	return i.Incoming.Ack()
}

// faultyStore is an idempotency store with switches.
type faultyStore struct {
	idempotency.Store
	down atomic.Bool
	fail func(step string) error
}

func (s *faultyStore) check(step string) error {
	if s.down.Load() {
		return errDown
	}
	if s.fail != nil {
		return s.fail(step)
	}
	return nil
}

func (s *faultyStore) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	if err := s.check("claim"); err != nil {
		return idempotency.Answer{}, err
	}
	return s.Store.Claim(ctx, key, token, attempt, lease)
}

func (s *faultyStore) Renew(ctx context.Context, key, token string, lease time.Duration) error {
	if err := s.check("renew"); err != nil {
		return err
	}
	return s.Store.Renew(ctx, key, token, lease)
}

func (s *faultyStore) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	if err := s.check("complete"); err != nil {
		return 0, err
	}
	return s.Store.Complete(ctx, key, token, window)
}

func (s *faultyStore) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	if err := s.check("schedule"); err != nil {
		return err
	}
	return s.Store.Schedule(ctx, key, token, attempt, ttl)
}

func (s *faultyStore) Release(ctx context.Context, key, token string) error {
	if err := s.check("release"); err != nil {
		return err
	}
	return s.Store.Release(ctx, key, token)
}

// sink keeps dead letters.
type sink struct {
	down    atomic.Bool
	mu      sync.Mutex
	letters map[string]delivery.DeadLetter // by ID
}

func (s *sink) DeadLetter(_ context.Context, letters ...delivery.DeadLetter) error {
	if s.down.Load() {
		return errDown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, letter := range letters {
		s.letters[letter.ID] = letter
	}
	return nil
}

// only returns the one letter there is.
func (s *sink) only(t *testing.T) delivery.DeadLetter {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.letters, 1)
	for _, letter := range s.letters {
		return letter
	}
	return delivery.DeadLetter{}
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.letters)
}
