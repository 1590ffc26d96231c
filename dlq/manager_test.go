package dlq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

// letter is a dead letter whose body, recipient and error must not leak.
func letter(id string) delivery.DeadLetter {
	return delivery.DeadLetter{
		ID: id,
		Envelope: delivery.Envelope{
			Message: delivery.Message{
				ID: "message of " + id, Recipient: "secret-recipient", Type: "sms", Body: []byte("secret-body"),
			},
			Attempt: 3,
			History: []delivery.Failure{{At: noon.Add(-time.Minute), Attempt: 2, Error: "secret-error 1"}, {At: noon, Attempt: 3, Error: "secret-error 2"}},
		},
		Reason: delivery.ReasonExhausted,
		Error:  "secret-error 2",
		Source: "consumer",
		At:     noon,
	}
}

func letters(n int) ([]delivery.DeadLetter, []string) {
	all, ids := make([]delivery.DeadLetter, n), make([]string, n)
	for i := range all {
		ids[i] = fmt.Sprintf("letter-%03d", i)
		all[i] = letter(ids[i])
	}
	return all, ids
}

// log collects events, each as its fields.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *log) events(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	assert.NotContains(t, l.text.String(), "secret")
	var events []map[string]any
	for line := range strings.Lines(l.text.String()) {
		var event map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &event))
		delete(event, "time")
		events = append(events, event)
	}
	return events
}

// broken is a store whose calls fail where the test wants it.
type broken struct {
	dlq.Store
	put, count, purge error
	remove            func(ids []string) []error // nil lets it through
	claim             func(ids []string) ([]dlq.Entry, []error)
	counts            atomic.Int32
	released          []string
}

func (b *broken) Put(ctx context.Context, entries ...dlq.Entry) error {
	if b.put != nil {
		return b.put
	}
	return b.Store.Put(ctx, entries...)
}

func (b *broken) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	b.counts.Add(1)
	if b.count != nil {
		return 0, b.count
	}
	return b.Store.Count(ctx, filter)
}

func (b *broken) Purge(ctx context.Context, before, now time.Time) (int, error) {
	if b.purge != nil {
		return 0, b.purge
	}
	return b.Store.Purge(ctx, before, now)
}

func (b *broken) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	if b.claim != nil {
		return b.claim(ids)
	}
	return b.Store.Claim(ctx, claim, ids...)
}

func (b *broken) Remove(ctx context.Context, token string, ids ...string) []error {
	if b.remove != nil {
		return b.remove(ids)
	}
	return b.Store.Remove(ctx, token, ids...)
}

func (b *broken) Release(ctx context.Context, token string, ids ...string) []error {
	b.released = append(b.released, ids...)
	return b.Store.Release(ctx, token, ids...)
}

func kept(t *testing.T, manager *dlq.Manager) []string {
	t.Helper()
	page, err := manager.List(context.Background(), dlq.Query{Order: dlq.OldestFirst, Limit: dlq.MaxLimit})
	require.NoError(t, err)
	ids := []string{}
	for i := range page.Entries {
		ids = append(ids, page.Entries[i].ID)
	}
	return ids
}

func gauge(t *testing.T, collector *metrics.Collector) float64 {
	t.Helper()
	value, ok := collector.Value(metrics.DeadLetters)
	require.True(t, ok)
	return value
}

func TestManagerFaultsAreToldByEveryUse(t *testing.T) {
	ctx := context.Background()
	faulty := dlq.NewManager(nil, nil, dlq.Config{Lease: time.Millisecond, BatchSize: 1001})
	require.ErrorContains(t, faulty.Err(), "store is nil")
	require.ErrorContains(t, faulty.Err(), "Lease is 1ms, want at least 1s")
	require.ErrorContains(t, faulty.Err(), "BatchSize is 1001, want 1 to 1000")
	var none *dlq.Manager
	for _, manager := range []*dlq.Manager{faulty, new(dlq.Manager), none} {
		_, getErr := manager.Get(ctx, "a")
		_, listErr := manager.List(ctx, dlq.Query{})
		_, requeueErr := manager.Requeue(ctx, "a")
		_, deleteErr := manager.Delete(ctx, "a")
		_, statsErr := manager.Stats(ctx)
		_, purgeErr := manager.Purge(ctx, time.Hour)
		for _, err := range []error{
			manager.Err(), manager.DeadLetter(ctx, letter("a")), getErr, listErr, requeueErr, deleteErr, statsErr, purgeErr,
		} {
			require.ErrorIs(t, err, dlq.ErrConfig)
		}
	}
}

func TestDeadLetterKeepsEverything(t *testing.T) {
	ctx := context.Background()
	manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{})
	given := letter("a")
	given.Raw = []byte{0, 0xff}
	given.Facts = map[string]string{"queue": "orders.normal"}
	given.At = noon.Add(1234567 * time.Nanosecond).In(time.FixedZone("east", 3600))
	require.NoError(t, manager.DeadLetter(ctx, given))
	require.NoError(t, manager.DeadLetter(ctx))

	entries, err := manager.Get(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, []dlq.Entry{{
		ID: "a", Envelope: given.Envelope, Raw: given.Raw, Reason: given.Reason, Error: given.Error, Source: given.Source, Facts: given.Facts,
		Fingerprint:   dlq.Fingerprint("secret-error 999"),
		FirstFailedAt: noon.Add(-time.Minute),
		DeadAt:        noon.Add(1234 * time.Microsecond),
	}}, entries)
}

func TestDeadLetterWithoutHistoryOrTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{})
		require.NoError(t, manager.DeadLetter(ctx, delivery.DeadLetter{ID: "a", Reason: "of the host's own"}))
		entries, err := manager.Get(ctx, "a")
		require.NoError(t, err)
		assert.Equal(t, time.Now().UTC(), entries[0].DeadAt)
		assert.Equal(t, time.Now().UTC(), entries[0].FirstFailedAt)

		require.ErrorIs(t, manager.DeadLetter(ctx, letter("b"), delivery.DeadLetter{}), dlq.ErrInvalid)
		assert.Equal(t, []string{"a"}, kept(t, manager))
	})
}

func TestDeadLetterFailsWhenTheStoreDoes(t *testing.T) {
	var events log
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{}), put: dlq.ErrFull}
	manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector, Logger: events.logger()})
	require.ErrorIs(t, manager.DeadLetter(context.Background(), letter("a")), dlq.ErrFull)
	assert.Empty(t, events.events(t))
	count, _ := collector.Value(metrics.DeadLettersTotal, metrics.LabelReason, "exhausted")
	assert.Zero(t, count)

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	store.put = nil
	require.ErrorIs(t, manager.DeadLetter(ended, letter("a")), context.Canceled)
}

func TestMetricsAndLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		var events log
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		sender := &sender{}
		manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{Metrics: collector, Logger: events.logger()})

		malformed, foreign := letter("c"), letter("d")
		malformed.Reason, foreign.Reason = delivery.ReasonMalformed, "of the host's own"
		require.NoError(t, manager.DeadLetter(ctx, letter("a"), letter("b"), malformed, foreign))
		require.NoError(t, manager.DeadLetter(ctx, letter("a")))
		for reason, want := range map[string]float64{"exhausted": 3, "malformed": 1, "of the host's own": 1} {
			count, _ := collector.Value(metrics.DeadLettersTotal, metrics.LabelReason, reason)
			assert.InDelta(t, want, count, 0, reason)
		}
		assert.InDelta(t, 4, gauge(t, collector), 0)

		_, err := manager.Requeue(ctx, "a", "c", "nobody")
		require.Error(t, err)
		assert.InDelta(t, 3, gauge(t, collector), 0)
		_, err = manager.Delete(ctx, "b")
		require.NoError(t, err)
		assert.InDelta(t, 2, gauge(t, collector), 0)
		purged, err := manager.Purge(ctx, time.Second)
		require.NoError(t, err)
		assert.Zero(t, purged, "the synthetic clock starts before noon")
		time.Sleep(time.Until(noon) + time.Hour)
		purged, err = manager.Purge(ctx, time.Hour-time.Nanosecond)
		require.NoError(t, err)
		assert.Equal(t, 2, purged)
		assert.InDelta(t, 0, gauge(t, collector), 0)

		stored := func(id, reason string) map[string]any {
			return map[string]any{
				"level": "ERROR", "msg": "dead letter stored", "id": id, "reason": reason,
				"fingerprint": dlq.Fingerprint("secret-error 2"), "source": "consumer",
			}
		}
		assert.Equal(t, []map[string]any{
			stored("a", "exhausted"), stored("b", "exhausted"), stored("c", "malformed"), stored("d", "of the host's own"),
			stored("a", "exhausted"),
			{"level": "INFO", "msg": "dead letters requeued", "count": 1.0, "ids": []any{"a"}},
			{"level": "INFO", "msg": "dead letters deleted", "count": 1.0, "ids": []any{"b"}},
			{"level": "INFO", "msg": "dead letters purged", "count": 0.0, "older_than": float64(time.Second)},
			{"level": "INFO", "msg": "dead letters purged", "count": 2.0, "older_than": float64(time.Hour - time.Nanosecond)},
		}, events.events(t))
	})
}

func TestGetAndDeleteTellOfEveryID(t *testing.T) {
	ctx := context.Background()
	manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{BatchSize: 2})
	all, _ := letters(5)
	require.NoError(t, manager.DeadLetter(ctx, all...))

	entries, err := manager.Get(ctx, "letter-003", "nobody", "letter-001")
	require.ErrorIs(t, err, dlq.ErrNotFound)
	require.EqualError(t, err, "dlq: 1 of 3 entries failed; nobody: dlq: no such entry")
	assert.Equal(t, []string{"letter-003", "letter-001"}, []string{entries[0].ID, entries[1].ID})

	results, err := manager.Delete(ctx, "letter-000", "nobody", "letter-004", "letter-000", "no one", "none", "not one")
	var each *dlq.ResultsError
	require.ErrorAs(t, err, &each)
	require.NotErrorIs(t, err, dlq.ErrClaimed)
	assert.Equal(t, each.Results, results)
	require.ErrorContains(t, err, "4 of 7 entries failed; nobody: dlq: no such entry;")
	require.ErrorContains(t, err, "; and 1 more")
	assert.Equal(t, []dlq.Result{
		{ID: "letter-000"}, {ID: "nobody", Err: dlq.ErrNotFound}, {ID: "letter-004"}, {ID: "letter-000"},
		{ID: "no one", Err: dlq.ErrNotFound}, {ID: "none", Err: dlq.ErrNotFound}, {ID: "not one", Err: dlq.ErrNotFound},
	}, results)
	assert.Equal(t, []string{"letter-001", "letter-002", "letter-003"}, kept(t, manager))

	results, err = manager.Delete(ctx)
	require.NoError(t, err)
	assert.Empty(t, results)

	ended, cancel := context.WithCancel(ctx)
	cancel()
	results, err = manager.Delete(ended, "letter-001", "letter-002", "letter-003")
	require.ErrorIs(t, err, context.Canceled)
	assert.Len(t, results, 3)
	assert.Len(t, kept(t, manager), 3)
}

func TestPurgeWantsAnAge(t *testing.T) {
	ctx := context.Background()
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{}), purge: errors.New("down")}
	manager := dlq.NewManager(store, nil, dlq.Config{})
	require.NoError(t, manager.DeadLetter(ctx, letter("a")))
	for _, age := range []time.Duration{0, -time.Hour} {
		_, err := manager.Purge(ctx, age)
		require.ErrorIs(t, err, dlq.ErrInvalid)
	}
	_, err := manager.Purge(ctx, time.Hour)
	require.ErrorIs(t, err, store.purge)
	assert.Equal(t, []string{"a"}, kept(t, manager))
}

func TestStatsLearnsOfChangesMadeElsewhere(t *testing.T) {
	ctx := context.Background()
	store := dlq.NewMemory(dlq.MemoryConfig{})
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
	all, _ := letters(3)
	require.NoError(t, dlq.NewManager(store, nil, dlq.Config{}).DeadLetter(ctx, all...))
	assert.Zero(t, gauge(t, collector))
	stats, err := manager.Stats(ctx)
	require.NoError(t, err)
	assert.Equal(t, dlq.Stats{
		Total: 3, Oldest: noon, ByReason: map[delivery.Reason]int{"exhausted": 3}, ByType: map[string]int{"sms": 3},
		Fingerprints: []dlq.FingerprintCount{{Fingerprint: dlq.Fingerprint("secret-error 2"), Count: 3, Example: "secret-error 2"}},
	}, stats)
	assert.InDelta(t, 3, gauge(t, collector), 0)
}

func TestNobodyCountsWhatNobodyLooksAt(t *testing.T) {
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
	for _, recorder := range []metrics.Recorder{nil, metrics.Discard} {
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: recorder})
		require.NoError(t, manager.DeadLetter(context.Background(), letter("a")))
	}
	assert.Zero(t, store.counts.Load())
}

func TestACountThatFailsIsLogged(t *testing.T) {
	var events log
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{}), count: errors.New("down")}
	manager := dlq.NewManager(store, nil, dlq.Config{Metrics: metrics.NewCollector(metrics.CollectorConfig{}), Logger: events.logger()})
	require.NoError(t, manager.DeadLetter(context.Background(), letter("a")))
	assert.Equal(t, map[string]any{"level": "WARN", "msg": "dead letters not counted", "error": "down"}, events.events(t)[1])
}

// slowCount lets a count begin only when the test says so.
type slowCount struct {
	dlq.Store
	began, proceed chan struct{}
	counts         atomic.Int32
}

func (s *slowCount) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	s.counts.Add(1)
	s.began <- struct{}{}
	<-s.proceed
	return s.Store.Count(ctx, filter)
}

func TestAFloodOfDeadLettersIsNoFloodOfCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), began: make(chan struct{}), proceed: make(chan struct{})}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		all, _ := letters(50)
		var group sync.WaitGroup
		for i := range all {
			group.Go(func() { assert.NoError(t, manager.DeadLetter(ctx, all[i])) })
		}
		<-store.began
		synctest.Wait() // the others are stored; one waits to count, the rest is done
		close(store.proceed)
		<-store.began
		group.Wait()
		assert.Equal(t, int32(2), store.counts.Load())
		assert.InDelta(t, 50, gauge(t, collector), 0)
	})
}

func TestACounterThatGivesUpWaitingHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), began: make(chan struct{}), proceed: make(chan struct{})}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		var group sync.WaitGroup
		group.Go(func() { assert.NoError(t, manager.DeadLetter(context.Background(), letter("a"))) })
		<-store.began
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.NoError(t, manager.DeadLetter(short, letter("b")), "it is stored, whether counted or not")
		close(store.proceed)
		group.Wait()
		group.Go(func() { <-store.began })
		require.NoError(t, manager.DeadLetter(context.Background(), letter("c")))
		group.Wait()
		assert.InDelta(t, 3, gauge(t, collector), 0)
	})
}

func TestResultsErrorMatchesAnyOfItsErrors(t *testing.T) {
	err := error(&dlq.ResultsError{Results: []dlq.Result{{ID: "a"}, {ID: "b", Err: dlq.ErrClaimed}, {ID: "c", Err: &delivery.InvalidError{Field: "ID"}}}})
	require.ErrorIs(t, err, dlq.ErrClaimed)
	require.ErrorIs(t, err, delivery.ErrInvalid)
	require.NotErrorIs(t, err, dlq.ErrNotFound)
	var invalid *delivery.InvalidError
	require.ErrorAs(t, err, &invalid)
	assert.True(t, slices.Contains(err.(interface{ Unwrap() []error }).Unwrap(), dlq.ErrClaimed))
}
