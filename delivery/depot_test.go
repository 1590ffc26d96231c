package delivery_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// depot is what a RetryWorker works with, inside a synctest bubble: a message
// store, a road that messages leave by, and a graveyard, all of which can fail.
type depot struct {
	t         *testing.T
	store     *shakyStore
	road      *road
	graves    *graveyard
	collector *metrics.Collector
	log       *logbook
}

func newDepot(t *testing.T) *depot {
	return &depot{
		t:         t,
		store:     &shakyStore{Store: memory.NewStore(memory.StoreConfig{})},
		road:      &road{},
		graves:    &graveyard{letters: map[string]delivery.DeadLetter{}},
		collector: metrics.NewCollector(metrics.CollectorConfig{}),
		log:       &logbook{},
	}
}

func inDepot(t *testing.T, test func(d *depot)) {
	synctest.Test(t, func(t *testing.T) { test(newDepot(t)) })
}

// config has two retries, after 10 and 20 seconds.
func (d *depot) config() delivery.RetryWorkerConfig {
	return delivery.RetryWorkerConfig{
		Retry:       retry.Exponential{Base: 10 * time.Second, MaxRetries: 2},
		DeadLetters: d.graves,
		Metrics:     d.collector,
		Logger:      slog.New(slog.NewTextHandler(d.log, nil)),
	}
}

func (d *depot) worker(store delivery.Store, transport delivery.Transport, config delivery.RetryWorkerConfig) *delivery.RetryWorker {
	d.t.Helper()
	worker, err := delivery.NewRetryWorker(store, transport, config)
	require.NoError(d.t, err)
	return worker
}

// start runs a worker. The returned function ends it and waits.
func (d *depot) start(config delivery.RetryWorkerConfig) (stop func()) {
	d.t.Helper()
	return d.run(d.worker(d.store, d.road, config))
}

func (d *depot) run(worker *delivery.RetryWorker) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(d.t, <-done)
	})
	d.t.Cleanup(stop) // a test that fails early leaves nobody at work
	return stop
}

func (d *depot) save(records ...delivery.Record) {
	d.t.Helper()
	require.Nil(d.t, d.store.Save(context.Background(), records...))
}

func (d *depot) get(id string) delivery.Record {
	d.t.Helper()
	records, errs := d.store.Get(context.Background(), id)
	require.Nil(d.t, errs)
	return records[0]
}

func (d *depot) update(update delivery.Update) {
	d.t.Helper()
	_, errs := d.store.Store.Update(context.Background(), update)
	require.Nil(d.t, errs)
}

func (d *depot) timeouts() int {
	value, _ := d.collector.Value(metrics.AckTimeoutsTotal)
	return int(value)
}

func (d *depot) up(dependency string) bool {
	value, _ := d.collector.Value(metrics.DependencyUp, metrics.LabelDependency, dependency)
	return value > 0
}

// stored is a record as it would be in a store.
func stored(id string, status delivery.Status, due time.Time) delivery.Record {
	record := delivery.Record{Message: to(id), Progress: delivery.Progress{Status: status, DueAt: due}}
	record.CreatedAt = time.Now()
	switch status {
	case delivery.StatusRetrying:
		record.NextRetryAt, record.RetryCount = due, 1
		record.History = []delivery.Failure{{At: time.Now().UTC(), Error: "busy"}}
	case delivery.StatusSent:
		record.RequireAck, record.SentAt, record.AckDeadline = true, time.Now(), due
	default:
	}
	return record
}

// road is a transport that only takes. What it took is asked for by sent.
type road struct {
	mu    sync.Mutex
	send  func(ctx context.Context, batch []delivery.Envelope) []error // see onSend
	sends int
	taken []delivery.Envelope
	times []time.Time
}

func (r *road) Name() string { return "road" }

func (r *road) Send(ctx context.Context, batch []delivery.Envelope) []error {
	r.mu.Lock()
	r.sends++
	send := r.send
	r.mu.Unlock()
	var errs []error
	if send != nil {
		errs = send(ctx, batch)
	}
	if errs != nil && len(errs) != len(batch) {
		return errs
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range batch {
		if errs == nil || errs[i] == nil {
			r.taken = append(r.taken, batch[i])
			r.times = append(r.times, time.Now())
		}
	}
	return errs
}

func (r *road) Subscribe(context.Context, delivery.SubscribeConfig) (delivery.Subscription, error) {
	return nil, delivery.ErrUnsupported
}

func (r *road) Close() error { return nil }

// onSend has send asked what to take from now on. Nil: everything.
func (r *road) onSend(send func(ctx context.Context, batch []delivery.Envelope) []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send = send
}

// sent counts what was taken, by ID.
func (r *road) sent() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[string]int{}
	for i := range r.taken {
		counts[r.taken[i].ID]++
	}
	return counts
}

func (r *road) calls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sends
}

func (r *road) envelopes() []delivery.Envelope {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

// refusing fails every message, with err.
func refusing(err error) func(context.Context, []delivery.Envelope) []error {
	return func(_ context.Context, batch []delivery.Envelope) []error {
		return slices.Repeat([]error{err}, len(batch))
	}
}

// volatileRoad is a road whose messages end with the process.
type volatileRoad struct {
	*road
	session string
}

func (r *volatileRoad) Session() string { return r.session }

// shakyStore is a message store with switches. Before says what fails without
// being done, after what is done and then fails.
type shakyStore struct {
	*memory.Store
	down   atomic.Bool
	before func(step string) error
	after  func(step string) error
	calls  atomic.Int64
}

// step is around every method. errs is what a failure is noted in.
func (s *shakyStore) step(name string, do func() error) error {
	s.calls.Add(1)
	if s.down.Load() {
		return delivery.ErrStoreDown
	}
	if s.before != nil {
		if err := s.before(name); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if s.after != nil {
		return s.after(name)
	}
	return nil
}

func (s *shakyStore) Update(ctx context.Context, updates ...delivery.Update) (progress []delivery.Progress, errs []error) {
	err := s.step("update", func() error {
		progress, errs = s.Store.Update(ctx, updates...)
		return nil
	})
	if err != nil {
		return make([]delivery.Progress, len(updates)), slices.Repeat([]error{err}, len(updates))
	}
	return progress, errs
}

func (s *shakyStore) Claim(ctx context.Context, claim delivery.Claim) (records []delivery.Record, err error) {
	err = s.step("claim", func() (err error) {
		records, err = s.Store.Claim(ctx, claim)
		return err
	})
	if err != nil {
		records = nil
	}
	return records, err
}

func (s *shakyStore) Renew(ctx context.Context, token string, until time.Time) (n int, err error) {
	err = s.step("renew", func() (err error) {
		n, err = s.Store.Renew(ctx, token, until)
		return err
	})
	return n, err
}

func (s *shakyStore) NextDue(ctx context.Context, statuses ...delivery.Status) (due time.Time, err error) {
	err = s.step("next due", func() (err error) {
		due, err = s.Store.NextDue(ctx, statuses...)
		return err
	})
	return due, err
}

// once is a step's failure that happens the first time only.
func once(name string, failure error) func(step string) error {
	var done atomic.Bool
	return func(step string) error {
		if step == name && done.CompareAndSwap(false, true) {
			return failure
		}
		return nil
	}
}

// graveyard keeps dead letters that can be resolved.
type graveyard struct {
	down   atomic.Bool
	puts   atomic.Int64
	onPut  func()
	onTake func() error

	mu      sync.Mutex
	letters map[string]delivery.DeadLetter
	taken   []string
}

func (g *graveyard) DeadLetter(_ context.Context, letters ...delivery.DeadLetter) error {
	g.puts.Add(1)
	if g.down.Load() {
		return errDown
	}
	g.mu.Lock()
	for _, letter := range letters {
		g.letters[letter.ID] = letter
	}
	g.mu.Unlock()
	if g.onPut != nil {
		g.onPut()
	}
	return nil
}

func (g *graveyard) Resolve(_ context.Context, ids ...string) error {
	if g.onTake != nil {
		if err := g.onTake(); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		delete(g.letters, id)
		g.taken = append(g.taken, id)
	}
	return nil
}

func (g *graveyard) all() []delivery.DeadLetter {
	g.mu.Lock()
	defer g.mu.Unlock()
	var letters []delivery.DeadLetter
	for _, letter := range g.letters {
		letters = append(letters, letter)
	}
	return letters
}

// logbook is what was logged.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}
