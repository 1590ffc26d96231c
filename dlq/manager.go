package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/metrics"
)

// topFingerprints is how many of them Manager.Stats returns.
const topFingerprints = 10

// Manager puts dead letters in a Store, and lists, requeues and deletes them
// there. Any number of goroutines may call all methods at once, and any number
// of Managers may share a Store.
type Manager struct {
	store  Store
	config Config
	fault  error

	stored map[delivery.Reason]metrics.Counter // read-only
	gauge  *entryGauge

	requeuer *requeuer
	replays  *replayRunner
}

var (
	_ delivery.DeadLetterer = (*Manager)(nil)
	_ delivery.Resolver     = (*Manager)(nil)
	_ delivery.Purger       = (*Manager)(nil)
	_ delivery.Pinger       = (*Manager)(nil)
)

// NewManager returns a Manager of store. Without a sender Requeue and RunJobs are
// ErrNoSender, Config.Lease has no effect, which is a warning to Config.Logger, and
// everything else works. If store or config can't be used, Err and every method
// return what is wrong.
func NewManager(store Store, sender Sender, config Config) *Manager {
	idleLease := config.Lease != 0 && sender == nil
	config = config.withDefaults()
	m := &Manager{store: store, config: config, fault: config.validate()}
	if store == nil {
		m.fault = errors.Join(fmt.Errorf("%w: store is nil", ErrConfig), m.fault)
	} else if faulty, ok := store.(delivery.FaultReporter); ok {
		m.fault = errors.Join(faulty.Err(), m.fault)
	}
	m.stored = make(map[delivery.Reason]metrics.Counter)
	for _, reason := range []delivery.Reason{
		delivery.ReasonPermanent, delivery.ReasonExhausted, delivery.ReasonExpired,
		delivery.ReasonMalformed, delivery.ReasonAckTimeout, delivery.ReasonBroker, delivery.ReasonCrashed,
	} {
		m.stored[reason] = m.counter(reason)
	}
	m.gauge = newEntryGauge(store, &m.config)
	if m.fault == nil {
		m.gauge.refresh()
	}
	if idleLease {
		config.Logger.Warn("config field has no effect", "field", "Config.Lease", "want", "a sender")
	}
	m.requeuer = &requeuer{store: store, sender: sender, lease: config.Lease}
	m.replays = newReplayRunner(m.requeuer, m.gauge, &m.config)
	return m
}

func (m *Manager) counter(reason delivery.Reason) metrics.Counter {
	return m.config.Metrics.Counter(metrics.DeadLettersTotal, metrics.LabelReason, string(reason))
}

// Err returns what is wrong with the store or the config, as ErrConfig, or nil.
func (m *Manager) Err() error {
	if m == nil || m.store == nil && m.fault == nil {
		return fmt.Errorf("%w: Manager was not made by NewManager", ErrConfig)
	}
	return m.fault
}

// DeadLetter implements delivery.DeadLetterer. It returns nil when all letters
// are durable in the store. If one of them has no ID, it is ErrInvalid and
// stores none. A letter without a time gets the present one.
//
// What is out of an Entry's bounds is cut to them. If the store refuses an entry
// all the same, as ErrInvalid, the letter is put once more, stripped: with the
// body as Raw, without its history and times, texts without anything odd, the
// reason malformed, and its own reason in the fact FactReason.
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
	if err := m.put(ctx, entries); err != nil {
		return err
	}
	for i := range entries {
		entry := &entries[i]
		counter, known := m.stored[entry.Reason]
		if !known {
			counter = m.counter(entry.Reason)
		}
		counter.Add(1)
		m.config.Logger.LogAttrs(ctx, severity(entry.Reason), "dead letter stored",
			slog.String("dead_letter_id", entry.ID),
			slog.String("message_id", entry.Envelope.ID),
			slog.String("reason", string(entry.Reason)),
			slog.String("fingerprint", entry.Fingerprint),
			slog.String("source", entry.Source))
	}
	m.gauge.refresh()
	return nil
}

// severity is that of the event that a letter was stored. The consumer or the retry
// worker that gave a message up says so itself; what a broker gave up nobody else
// tells of.
func severity(reason delivery.Reason) slog.Level {
	if reason == delivery.ReasonBroker {
		return slog.LevelError
	}
	return slog.LevelDebug
}

// put puts entries in the store. Those that the store refuses for what they are
// would be refused for ever, so they are put stripped instead.
func (m *Manager) put(ctx context.Context, entries []Entry) error {
	err := m.store.Put(ctx, entries...)
	if !refused(err) {
		return err
	}
	for i := range entries { // which of them it is, only single calls tell
		if len(entries) > 1 {
			err = m.store.Put(ctx, entries[i])
		}
		if refused(err) {
			m.config.Logger.LogAttrs(ctx, slog.LevelWarn, "dead letter stripped",
				slog.String("dead_letter_id", entries[i].ID), slog.String("message_id", entries[i].Envelope.ID), slog.Any("error", err))
			entries[i] = entries[i].stripped(err)
			err = m.store.Put(ctx, entries[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refused reports whether a store's error is an entry's fault.
func refused(err error) bool {
	return errors.Is(err, ErrInvalid) || errors.Is(err, delivery.ErrInvalid) || errors.Is(err, delivery.ErrTooLarge)
}

// List returns a page of entries, newest first unless the query says otherwise.
// If query can't be used, it is ErrQuery or ErrCursor.
func (m *Manager) List(ctx context.Context, query Query) (Page, error) {
	if err := m.Err(); err != nil {
		return Page{}, err
	}
	return m.store.List(ctx, query)
}

// Get returns the entries of ids, in that order. It leaves out ids without an
// entry. The *delivery.ResultsError has ErrNotFound for each of them.
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

// Delete deletes entries for good. The results are one for each id, in order.
// The error is a *delivery.ResultsError with the same results when one of them
// has an error. It is ErrNotFound for an id without an entry, and ErrClaimed
// for an entry that is being requeued and might be sent.
func (m *Manager) Delete(ctx context.Context, ids ...string) ([]delivery.Result, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	return m.inBatches(ctx, ids, "dead letters deleted", func(batch []string) []error {
		return m.store.Delete(ctx, time.Now(), batch...)
	})
}

// Resolve implements delivery.Resolver. It deletes entries whose messages
// turned out to be delivered after all. An id without an entry is no error.
// Other errors of single ids are in a *delivery.ResultsError. With ErrClaimed
// the entry is being requeued: resolve it again a little later.
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

// Ping implements delivery.Pinger: it asks the store whether it is there. A store that
// can't be asked counts as there.
func (m *Manager) Ping(ctx context.Context) error {
	if err := m.Err(); err != nil {
		return err
	}
	if pinger, able := m.store.(delivery.Pinger); able {
		return pinger.Ping(ctx)
	}
	return nil
}

// Stats counts the entries, and returns the ten most frequent fingerprints. It
// sets metrics.DeadLetters.
func (m *Manager) Stats(ctx context.Context) (Stats, error) {
	if err := m.Err(); err != nil {
		return Stats{}, err
	}
	stats, err := m.store.Stats(ctx, topFingerprints)
	if err == nil {
		m.gauge.set(stats.Total)
	}
	return stats, err
}

// Purge deletes for good all entries that were given up longer ago than
// olderThan, except for those that are being requeued. It returns how many it
// deleted, with an error, too. A host that wants a retention sets
// delivery.RetryWorkerConfig.DeadLetterRetention, or calls it regularly.
// Stores delete in batches of a thousand at most, so that others need not wait
// long. If ctx ends in between, the next call goes on. An olderThan that is not
// more than 0 is ErrInvalid.
func (m *Manager) Purge(ctx context.Context, olderThan time.Duration) (int, error) {
	if err := m.Err(); err != nil {
		return 0, err
	}
	if olderThan <= 0 {
		return 0, fmt.Errorf("%w: olderThan is %s, want more than 0", ErrInvalid, olderThan)
	}
	now := time.Now()
	purged, err := m.store.Purge(ctx, now.Add(-olderThan), now)
	if purged > 0 {
		m.config.Logger.LogAttrs(ctx, slog.LevelInfo, "dead letters purged",
			slog.Int("count", purged), slog.Duration("older_than", olderThan))
		m.gauge.refresh()
	}
	return purged, err
}

// inBatches calls do with ids in batches, each id once. It logs an event with
// those ids of each batch for which do returned nil.
func (m *Manager) inBatches(ctx context.Context, ids []string, event string, do func(batch []string) []error) ([]delivery.Result, error) {
	outcome := make(map[string]error, len(ids))
	unique := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, repeated := outcome[id]; !repeated {
			outcome[id] = nil
			unique = append(unique, id)
		}
	}
	var last error // of the ids so far
	for batch := range slices.Chunk(unique, m.config.BatchSize) {
		if err := ctx.Err(); err != nil {
			if errors.Is(last, err) {
				err = last // which may tell more
			}
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
			} else {
				last = err
			}
		}
		if len(done) > 0 {
			m.config.Logger.LogAttrs(ctx, slog.LevelInfo, event, slog.Int("count", len(done)), slog.Any("dead_letter_ids", done))
		}
	}
	if len(ids) > 0 {
		m.gauge.refresh()
	}
	results, errs := make([]delivery.Result, len(ids)), make([]error, len(ids))
	for i, id := range ids {
		results[i], errs[i] = delivery.Result{ID: id, Err: outcome[id]}, outcome[id]
	}
	return results, delivery.NewResultsError(ids, errs)
}

// aligned returns errs with one error for each of n ids, whatever a store
// returned. Where their number is wrong it is an error of each id, so that
// nothing counts as done that may not be.
func aligned(errs []error, n int) []error {
	switch len(errs) {
	case n:
		return errs
	case 0:
		return make([]error, n)
	}
	return slices.Repeat([]error{fmt.Errorf("dlq: got %d results for %d entries", len(errs), n)}, n)
}
