package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/metrics"
)

// Defaults and bounds of Config.
const (
	DefaultLease     = 2 * time.Minute
	MinLease         = time.Second
	DefaultBatchSize = 100
	MaxBatchSize     = 1000
)

// topFingerprints is how many of them Manager.Stats tells.
const topFingerprints = 10

// Config configures a Manager.
type Config struct {
	// Lease is how long an entry that is being requeued is kept from others.
	// After a crash it can't be requeued or deleted for as long. Sending one
	// batch may take half of it. It is also how long a replay job waits for a
	// runner that died. Default DefaultLease, at least MinLease.
	Lease time.Duration
	// BatchSize is how many entries are requeued or deleted together, which is
	// also how many bodies are in memory at once, for each replay job that is
	// running too. Default DefaultBatchSize, from 1 to MaxBatchSize.
	BatchSize int
	// Metrics gets metrics.DeadLettersTotal, which counts every letter stored, a
	// repeated one included, and metrics.DeadLetters, which is counted anew
	// after each change that this Manager makes, unless the call's context has
	// ended by then. Where several processes share the store, call Stats from
	// time to time to learn of changes made elsewhere. Default none.
	Metrics metrics.Recorder
	// Logger gets an Error event for each dead letter and an Info event for
	// each batch requeued or deleted and for each purge. Default none.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Lease = cmp.Or(c.Lease, DefaultLease)
	c.BatchSize = cmp.Or(c.BatchSize, DefaultBatchSize)
	c.Metrics = metrics.OrDiscard(c.Metrics)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c *Config) validate() error {
	var faults []error
	if c.Lease < MinLease {
		faults = append(faults, fmt.Errorf("%w: Lease is %s, want at least %s", ErrConfig, c.Lease, MinLease))
	}
	if c.BatchSize < 1 || c.BatchSize > MaxBatchSize {
		faults = append(faults, fmt.Errorf("%w: BatchSize is %d, want 1 to %d", ErrConfig, c.BatchSize, MaxBatchSize))
	}
	return errors.Join(faults...)
}

// Sender makes envelopes durable somewhere, for Manager.Requeue.
// delivery.Publisher is one.
type Sender interface {
	// Forward sends the envelopes with their Generation, Attempt and History as
	// they are, and returns nil when all are durable. A *delivery.ResultsError
	// tells of each of them; any other error is that of all. An envelope that
	// was sent before in the same generation has to be sent again: telling
	// duplicates is the consumer's task. It returns by ctx's end and must not
	// change or retain what it is given.
	Forward(ctx context.Context, envelopes ...delivery.Envelope) error
}

var _ Sender = (*delivery.Publisher)(nil)

// Manager keeps dead letters in a Store and lets them be looked at, requeued
// and deleted. All methods may be called by any number of goroutines at once,
// and any number of Managers may share a Store.
type Manager struct {
	store  Store
	sender Sender
	config Config
	fault  error

	stored map[delivery.Reason]metrics.Counter // read-only
	kept   kept

	replays *replays
}

var (
	_ delivery.DeadLetterer = (*Manager)(nil)
	_ delivery.Resolver     = (*Manager)(nil)
)

// NewManager returns a Manager over store. Without a sender Requeue is
// ErrNoSender, and everything else works. What can't be used is told by Err and
// by every use.
func NewManager(store Store, sender Sender, config Config) *Manager {
	config = config.withDefaults()
	m := &Manager{store: store, sender: sender, config: config, fault: config.validate(), replays: newReplays(store)}
	if store == nil {
		m.fault = errors.Join(fmt.Errorf("%w: store is nil", ErrConfig), m.fault)
	} else if faulty, ok := store.(interface{ Err() error }); ok {
		m.fault = errors.Join(faulty.Err(), m.fault)
	}
	m.stored = make(map[delivery.Reason]metrics.Counter)
	for _, reason := range []delivery.Reason{
		delivery.ReasonPermanent, delivery.ReasonExhausted, delivery.ReasonExpired,
		delivery.ReasonMalformed, delivery.ReasonAckTimeout, delivery.ReasonBroker,
	} {
		m.stored[reason] = m.counter(reason)
	}
	m.kept = kept{store: store, logger: config.Logger}
	if config.Metrics != metrics.Discard {
		m.kept.gauge = config.Metrics.Gauge(metrics.DeadLetters)
		m.kept.running = make(chan struct{}, 1)
	}
	return m
}

func (m *Manager) counter(reason delivery.Reason) metrics.Counter {
	return m.config.Metrics.Counter(metrics.DeadLettersTotal, metrics.LabelReason, string(reason))
}

// Err says what is wrong with the config, as an ErrConfig, or nil.
func (m *Manager) Err() error {
	if m == nil || m.store == nil && m.fault == nil {
		return fmt.Errorf("%w: Manager was not made by NewManager", ErrConfig)
	}
	return m.fault
}

// DeadLetter implements delivery.DeadLetterer: it returns nil when all letters
// are durable in the store. A letter without an ID is ErrInvalid, and nothing
// was stored then; one without a time is of now.
func (m *Manager) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
	if err := m.Err(); err != nil {
		return err
	}
	if len(letters) == 0 {
		return nil
	}
	now := time.Now()
	entries := make([]Entry, len(letters))
	for i := range letters {
		if letters[i].ID == "" {
			return fmt.Errorf("%w: DeadLetter.ID is empty", ErrInvalid)
		}
		entries[i] = newEntry(&letters[i], now)
	}
	if err := m.store.Put(ctx, entries...); err != nil {
		return err
	}
	for i := range entries {
		entry := &entries[i]
		counter, known := m.stored[entry.Reason]
		if !known {
			counter = m.counter(entry.Reason)
		}
		counter.Add(1)
		m.config.Logger.LogAttrs(ctx, slog.LevelError, "dead letter stored",
			slog.String("id", entry.ID),
			slog.String("reason", string(entry.Reason)),
			slog.String("fingerprint", entry.Fingerprint),
			slog.String("source", entry.Source))
	}
	m.kept.refresh(ctx)
	return nil
}

// List returns a page of entries, newest first unless the query says otherwise.
// A query that can't be used is ErrQuery or ErrCursor.
func (m *Manager) List(ctx context.Context, query Query) (Page, error) {
	if err := m.Err(); err != nil {
		return Page{}, err
	}
	return m.store.List(ctx, query)
}

// Get returns the entries of ids, in that order. Those that are not there are
// left out, and a *delivery.ResultsError names them as ErrNotFound.
func (m *Manager) Get(ctx context.Context, ids ...string) ([]Entry, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	entries, errs := m.store.Get(ctx, ids...)
	errs = aligned(errs, len(ids))
	if len(entries) != len(ids) {
		return nil, fmt.Errorf("dlq: store returned %d entries for %d ids", len(entries), len(ids))
	}
	found := make([]Entry, 0, len(entries))
	for i := range entries {
		if errs[i] == nil {
			found = append(found, entries[i])
		}
	}
	return found, delivery.NewResultsError(ids, errs)
}

// Delete deletes entries for good. The results are one for each id, in order;
// see delivery.ResultsError for the error. ErrNotFound: there is none; ErrClaimed: it is
// being requeued, and might be sent.
func (m *Manager) Delete(ctx context.Context, ids ...string) ([]delivery.Result, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	return m.inBatches(ctx, ids, "dead letters deleted", func(batch []string) []error {
		return m.store.Delete(ctx, time.Now(), batch...)
	})
}

// Resolve implements delivery.Resolver: it deletes entries whose messages turned
// out to be delivered after all. One that is not there is no error. See
// delivery.ResultsError for the error; ErrClaimed: the entry is being requeued, resolve
// it again a little later.
func (m *Manager) Resolve(ctx context.Context, ids ...string) error {
	results, err := m.Delete(ctx, ids...)
	var failed *delivery.ResultsError
	if !errors.As(err, &failed) {
		return err
	}
	errs := make([]error, len(results))
	for i, result := range results {
		if !errors.Is(result.Err, ErrNotFound) {
			errs[i] = result.Err
		}
	}
	return delivery.NewResultsError(ids, errs)
}

// Stats counts what is kept, with the ten most frequent fingerprints.
func (m *Manager) Stats(ctx context.Context) (Stats, error) {
	if err := m.Err(); err != nil {
		return Stats{}, err
	}
	stats, err := m.store.Stats(ctx, topFingerprints)
	if err == nil {
		m.kept.refresh(ctx)
	}
	return stats, err
}

// Purge deletes for good what was given up longer ago than olderThan, except
// for what is being requeued, and returns how many entries that were. It is how
// a host sets a retention: call it as often as it suits. An olderThan that is
// not more than 0 is ErrInvalid.
func (m *Manager) Purge(ctx context.Context, olderThan time.Duration) (int, error) {
	if err := m.Err(); err != nil {
		return 0, err
	}
	if olderThan <= 0 {
		return 0, fmt.Errorf("%w: olderThan is %s, want more than 0", ErrInvalid, olderThan)
	}
	now := time.Now()
	purged, err := m.store.Purge(ctx, now.Add(-olderThan), now)
	if err != nil {
		return purged, err
	}
	m.config.Logger.LogAttrs(ctx, slog.LevelInfo, "dead letters purged",
		slog.Int("count", purged), slog.Duration("older_than", olderThan))
	m.kept.refresh(ctx)
	return purged, nil
}

// inBatches runs do for ids, each id once, and logs those of each batch for
// which it returned nil as event.
func (m *Manager) inBatches(ctx context.Context, ids []string, event string, do func(batch []string) []error) ([]delivery.Result, error) {
	outcome := make(map[string]error, len(ids))
	unique := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, repeated := outcome[id]; !repeated {
			outcome[id] = nil
			unique = append(unique, id)
		}
	}
	for batch := range slices.Chunk(unique, m.config.BatchSize) {
		if err := ctx.Err(); err != nil {
			for _, id := range batch {
				outcome[id] = err
			}
			continue
		}
		var done []string
		for i, err := range aligned(do(batch), len(batch)) {
			outcome[batch[i]] = err
			if err == nil {
				done = append(done, batch[i])
			}
		}
		if len(done) > 0 {
			m.config.Logger.LogAttrs(ctx, slog.LevelInfo, event, slog.Int("count", len(done)), slog.Any("ids", done))
		}
	}
	if len(ids) > 0 {
		m.kept.refresh(ctx)
	}
	results, errs := make([]delivery.Result, len(ids)), make([]error, len(ids))
	for i, id := range ids {
		results[i], errs[i] = delivery.Result{ID: id, Err: outcome[id]}, outcome[id]
	}
	return results, delivery.NewResultsError(ids, errs)
}

// aligned is errs with one place for each of n ids, whatever a store or a
// sender returned: a wrong count is an error for each, so that nothing counts
// as done that may not be.
func aligned(errs []error, n int) []error {
	switch len(errs) {
	case n:
		return errs
	case 0:
		return make([]error, n)
	}
	return slices.Repeat([]error{fmt.Errorf("dlq: got %d results for %d entries", len(errs), n)}, n)
}
