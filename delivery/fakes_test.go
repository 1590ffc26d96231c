package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
)

var errDown = errors.New("down")

// faultyTransport is the memory transport with switches.
type faultyTransport struct {
	*memory.Transport
	down      atomic.Bool          // sends fail
	loseAck   func(id string) bool // acks that never arrive
	broken    func(id string) bool // what can't be decoded
	lost      atomic.Int64         // connections that are gone, with what came by them
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
		wrapped[i] = &faultyIncoming{Incoming: batch[i], transport: s.transport, connection: s.transport.lost.Load()}
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
	transport  *faultyTransport
	connection int64 // its number
}

func (i *faultyIncoming) Envelope() (*delivery.Envelope, error) {
	envelope, err := i.Incoming.Envelope()
	if err == nil && i.transport.broken != nil && i.transport.broken(envelope.ID) {
		return nil, &delivery.MalformedError{Problem: "broken", Raw: envelope.Body}
	}
	return envelope, err
}

func (i *faultyIncoming) Stale() bool { return i.connection != i.transport.lost.Load() }

// Ack that is lost leaves the message for redelivery, as a connection that
// breaks in that moment does.
func (i *faultyIncoming) Ack() error {
	envelope, err := i.Incoming.Envelope()
	if i.Stale() || err == nil && i.transport.loseAck != nil && i.transport.loseAck(envelope.ID) {
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

// sendOnly is a transport that remembers what is sent and that nobody receives
// from. Unlike the one in memory it is not Volatile.
type sendOnly struct {
	mu    sync.Mutex
	send  func(ctx context.Context, batch []delivery.Envelope) []error // see onSend
	sends int
	taken []delivery.Envelope
	times []time.Time
}

// Name is that of the transport whose place it takes.
func (s *sendOnly) Name() string { return "memory" }

func (s *sendOnly) Send(ctx context.Context, batch []delivery.Envelope) []error {
	s.mu.Lock()
	s.sends++
	send := s.send
	s.mu.Unlock()
	var errs []error
	if send != nil {
		errs = send(ctx, batch)
	}
	if errs != nil && len(errs) != len(batch) {
		return errs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		if errs == nil || errs[i] == nil {
			s.taken = append(s.taken, batch[i])
			s.times = append(s.times, time.Now())
		}
	}
	return errs
}

func (s *sendOnly) Subscribe(context.Context, delivery.SubscribeConfig) (delivery.Subscription, error) {
	return nil, delivery.ErrUnsupported
}

func (s *sendOnly) Close() error { return nil }

// onSend has send decide from now on what is taken. Nil: everything is.
func (s *sendOnly) onSend(send func(ctx context.Context, batch []delivery.Envelope) []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send = send
}

// sent counts what was taken, by ID.
func (s *sendOnly) sent() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := map[string]int{}
	for i := range s.taken {
		counts[s.taken[i].ID]++
	}
	return counts
}

func (s *sendOnly) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sends
}

func (s *sendOnly) envelopes() []delivery.Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken)
}

// refusing fails every message, with err.
func refusing(err error) func(context.Context, []delivery.Envelope) []error {
	return func(_ context.Context, batch []delivery.Envelope) []error { return allOf(err, len(batch)) }
}

// volatileOutlet is an outlet whose messages end with the process.
type volatileOutlet struct {
	*sendOnly
	session string
}

func (o *volatileOutlet) Session() string { return o.session }

// faultyRecords is the memory store of records with switches. Its operations are
// "save", "update" with the first update's status, "claim", "renew", "purge" and
// "next due".
type faultyRecords struct {
	*memory.Store
	down    atomic.Bool
	getDown atomic.Bool
	// fail is asked before an operation, and lost after it: an error that it
	// returns hides that the operation was carried out.
	fail func(operation string) error
	lost func(operation string) error
	// onGet and onUpdate are called before these operations.
	onGet, onUpdate func(ctx context.Context)
	onPurge         func()
	mostPurged      atomic.Int64 // in one call
	// carriedOut is told of updates.
	carriedOut func(updates []delivery.Update, errs []error)
	// answers, when set, are those of every save and update.
	answers []error
	calls   atomic.Int64
}

func newRecords() *faultyRecords {
	return &faultyRecords{Store: memory.NewStore(memory.StoreConfig{})}
}

// operation is around every call.
func (s *faultyRecords) operation(name string, do func() error) error {
	s.calls.Add(1)
	if s.down.Load() {
		return fmt.Errorf("%w: %w", delivery.ErrStoreDown, errDown)
	}
	if s.fail != nil {
		if err := s.fail(name); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	switch {
	case s.down.Load():
		return fmt.Errorf("%w: %w", delivery.ErrStoreDown, errDown)
	case s.lost != nil:
		return s.lost(name)
	}
	return nil
}

func (s *faultyRecords) Save(ctx context.Context, records ...delivery.Record) (errs []error) {
	err := s.operation("save", func() error {
		if s.answers != nil {
			errs = slices.Clone(s.answers)
		} else {
			errs = s.Store.Save(ctx, records...)
		}
		return nil
	})
	if err != nil {
		return allOf(err, len(records))
	}
	return errs
}

func (s *faultyRecords) Update(ctx context.Context, updates ...delivery.Update) (progress []delivery.Progress, errs []error) {
	if s.onUpdate != nil {
		s.onUpdate(ctx)
	}
	err := s.operation("update "+string(updates[0].Status), func() error {
		if s.answers != nil {
			errs = slices.Clone(s.answers)
			return nil
		}
		progress, errs = s.Store.Update(ctx, updates...)
		if s.carriedOut != nil {
			s.carriedOut(updates, errs)
		}
		return nil
	})
	if err != nil {
		return make([]delivery.Progress, len(updates)), allOf(err, len(updates))
	}
	return progress, errs
}

func (s *faultyRecords) Get(ctx context.Context, ids ...string) ([]delivery.Record, []error) {
	if s.onGet != nil {
		s.onGet(ctx)
	}
	if s.getDown.Load() {
		return make([]delivery.Record, len(ids)), allOf(delivery.ErrStoreDown, len(ids))
	}
	return s.Store.Get(ctx, ids...)
}

func (s *faultyRecords) Claim(ctx context.Context, claim delivery.Claim) (records []delivery.Record, err error) {
	err = s.operation("claim", func() (err error) {
		records, err = s.Store.Claim(ctx, claim)
		return err
	})
	if err != nil {
		records = nil
	}
	return records, err
}

func (s *faultyRecords) Renew(ctx context.Context, queue, token string, until time.Time) error {
	return s.operation("renew", func() error { return s.Store.Renew(ctx, queue, token, until) })
}

func (s *faultyRecords) Purge(ctx context.Context, queue string, before time.Time, limit int) (n int, err error) {
	if s.onPurge != nil {
		s.onPurge()
	}
	err = s.operation("purge", func() (err error) {
		n, err = s.Store.Purge(ctx, queue, before, limit)
		return err
	})
	s.mostPurged.Store(max(s.mostPurged.Load(), int64(n)))
	return n, err
}

func (s *faultyRecords) NextDue(ctx context.Context, queue string, statuses ...delivery.Status) (due time.Time, err error) {
	err = s.operation("next due", func() (err error) {
		due, err = s.Store.NextDue(ctx, queue, statuses...)
		return err
	})
	return due, err
}

func (s *faultyRecords) record(t *testing.T, id string) delivery.Record {
	t.Helper()
	records, errs := s.Get(context.Background(), id)
	require.Empty(t, errs)
	return records[0]
}

func (s *faultyRecords) status(t *testing.T, id string) delivery.Status {
	t.Helper()
	return s.record(t, id).Status
}

// isUpdate says whether an operation is an update, to whatever status.
func isUpdate(operation string) bool { return strings.HasPrefix(operation, "update ") }

// once is a failure of the first operation whose name begins so, and of no other.
func once(name string, failure error) func(operation string) error {
	var done atomic.Bool
	return func(operation string) error {
		if strings.HasPrefix(operation, name) && done.CompareAndSwap(false, true) {
			return failure
		}
		return nil
	}
}

// dying makes a view of a store of records whose process dies at the first update:
// before it, and from then on, nothing is carried out.
func dying(records *faultyRecords) *faultyRecords {
	view := &faultyRecords{Store: records.Store}
	view.fail = func(operation string) error {
		if isUpdate(operation) {
			view.down.Store(true) // for good
			return delivery.ErrStoreDown
		}
		return nil
	}
	return view
}

func allOf(err error, n int) []error { return slices.Repeat([]error{err}, n) }

// deadLetters keeps dead letters, and can delete them.
type deadLetters struct {
	down      atomic.Bool
	puts      atomic.Int64
	onPut     func()
	onResolve func() error

	mu       sync.Mutex
	letters  map[string]delivery.DeadLetter // by ID
	resolved []string
}

func newDeadLetters() *deadLetters {
	return &deadLetters{letters: map[string]delivery.DeadLetter{}}
}

func (d *deadLetters) DeadLetter(_ context.Context, letters ...delivery.DeadLetter) error {
	d.puts.Add(1)
	if d.down.Load() {
		return errDown
	}
	d.mu.Lock()
	for _, letter := range letters {
		d.letters[letter.ID] = letter
	}
	d.mu.Unlock()
	if d.onPut != nil {
		d.onPut()
	}
	return nil
}

func (d *deadLetters) Resolve(_ context.Context, ids ...string) error {
	if d.onResolve != nil {
		if err := d.onResolve(); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		delete(d.letters, id)
		d.resolved = append(d.resolved, id)
	}
	return nil
}

// only returns the one letter there is.
func (d *deadLetters) only(t *testing.T) delivery.DeadLetter {
	t.Helper()
	letters := d.all()
	require.Len(t, letters, 1)
	return letters[0]
}

func (d *deadLetters) count() int { return len(d.all()) }

func (d *deadLetters) all() []delivery.DeadLetter {
	d.mu.Lock()
	defer d.mu.Unlock()
	var letters []delivery.DeadLetter
	for _, letter := range d.letters {
		letters = append(letters, letter)
	}
	return letters
}

// logText is what was logged.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func (l *logText) read() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logText) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}
