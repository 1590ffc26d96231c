package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

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

		byBroker, foreign := letter("c"), letter("d")
		byBroker.Reason, foreign.Reason = delivery.ReasonBroker, "of the host's own"
		require.NoError(t, manager.DeadLetter(ctx, letter("a"), letter("b"), byBroker, foreign))
		require.NoError(t, manager.DeadLetter(ctx, letter("a")))
		for reason, want := range map[string]float64{"exhausted": 3, "broker": 1, "of the host's own": 1} {
			count, _ := collector.Value(metrics.DeadLettersTotal, metrics.LabelReason, reason)
			assert.InDelta(t, want, count, 0, reason)
		}
		assert.InDelta(t, 4, gaugeSoon(t, collector), 0)

		_, err := manager.Requeue(ctx, "a", "nobody")
		require.Error(t, err)
		assert.InDelta(t, 3, gaugeSoon(t, collector), 0)
		_, err = manager.Delete(ctx, "b")
		require.NoError(t, err)
		assert.InDelta(t, 2, gaugeSoon(t, collector), 0)
		purged, err := manager.Purge(ctx, time.Second)
		require.NoError(t, err)
		assert.Zero(t, purged, "the synthetic clock starts before noon")
		wait(time.Until(noon) + time.Hour)
		purged, err = manager.Purge(ctx, time.Hour-time.Nanosecond)
		require.NoError(t, err)
		assert.Equal(t, 2, purged)
		assert.InDelta(t, 0, gaugeSoon(t, collector), 0)

		stored := func(id, reason string) map[string]any {
			level := "DEBUG"
			if reason == "broker" {
				level = "ERROR"
			}
			return map[string]any{
				"level": level, "msg": "dead letter stored", "dead_letter_id": id, "message_id": "message of " + id, "reason": reason,
				"fingerprint": dlq.Fingerprint("secret-error 2"), "source": "consumer",
			}
		}
		assert.Equal(t, []map[string]any{
			stored("a", "exhausted"), stored("b", "exhausted"), stored("c", "broker"), stored("d", "of the host's own"),
			stored("a", "exhausted"),
			{"level": "INFO", "msg": "dead letters requeued", "count": 1.0, "dead_letter_ids": []any{"a"}},
			{"level": "INFO", "msg": "dead letters deleted", "count": 1.0, "dead_letter_ids": []any{"b"}},
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
	require.EqualError(t, err, "1 of 3 failed; [1] nobody: dlq: no such entry")
	assert.Equal(t, []string{"letter-003", "letter-001"}, []string{entries[0].ID, entries[1].ID})

	results, err := manager.Delete(ctx, "letter-000", "nobody", "letter-004", "letter-000", "no one", "none", "not one")
	var each *delivery.ResultsError
	require.ErrorAs(t, err, &each)
	require.NotErrorIs(t, err, dlq.ErrClaimed)
	assert.Equal(t, each.Results, results)
	require.ErrorContains(t, err, "4 of 7 failed; [1] nobody: dlq: no such entry;")
	require.ErrorContains(t, err, "; and 1 more")
	assert.Equal(t, []delivery.Result{
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

// endsWithin is a store whose callers' context ends while it deletes, for a reason that
// it knows.
type endsWithin struct {
	dlq.Store
	end func()
	err error
}

func (e *endsWithin) Delete(_ context.Context, _ time.Time, ids ...string) []error {
	e.end()
	return slices.Repeat([]error{e.err}, len(ids))
}

// The batches that an ended context leaves out have the reason that one before has met.
func TestBatchesLeftOutTellTheReason(t *testing.T) {
	for name, err := range map[string]error{
		"known":   fmt.Errorf("%w: connection refused", context.Canceled),
		"unknown": context.Canceled,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		store := &endsWithin{Store: dlq.NewMemory(dlq.MemoryConfig{}), end: cancel, err: err}
		results, got := dlq.NewManager(store, nil, dlq.Config{BatchSize: 2}).Delete(ctx, "a", "b", "c", "d", "e")
		require.ErrorIs(t, got, context.Canceled, name)
		for _, result := range results {
			require.Equal(t, err, result.Err, name)
		}
	}
}

// What was purged before a purge failed is told of.
func TestPurgeThatIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events log
		memory := dlq.NewMemory(dlq.MemoryConfig{})
		for i := range 1500 {
			require.NoError(t, memory.Put(t.Context(), dlq.Entry{ID: fmt.Sprint(i), DeadAt: time.Now().Add(-time.Hour)}))
		}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(memory, nil, dlq.Config{Metrics: collector, Logger: events.logger()})
		assert.InDelta(t, 1500, gaugeSoon(t, collector), 0)
		purged, err := manager.Purge(&endsAfter{Context: t.Context(), calls: 1}, time.Minute)
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 1000, purged)
		assert.Equal(t, []map[string]any{{
			"level": "INFO", "msg": "dead letters purged", "count": 1000.0, "older_than": float64(time.Minute),
		}}, events.events(t))
		assert.InDelta(t, 500, gaugeSoon(t, collector), 0)
		purged, err = manager.Purge(t.Context(), time.Minute)
		require.NoError(t, err)
		assert.Equal(t, 500, purged, "the next one goes on")
	})
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

func TestResolveForgivesWhatIsGone(t *testing.T) {
	store := dlq.NewMemory(dlq.MemoryConfig{})
	manager := dlq.NewManager(store, nil, dlq.Config{})
	ctx := context.Background()
	all, ids := letters(3)
	require.NoError(t, manager.DeadLetter(ctx, all...))

	require.NoError(t, manager.Resolve(ctx))
	require.NoError(t, manager.Resolve(ctx, ids[0], "unknown", ids[0]))
	require.NoError(t, manager.Resolve(ctx, ids[0]))
	left, err := store.Count(ctx, dlq.Filter{})
	require.NoError(t, err)
	require.Equal(t, 2, left)

	// What is being requeued stays, and is told of.
	_, errs := store.Claim(ctx, dlq.Claim{Token: "somebody", Now: time.Now(), Lease: time.Minute}, ids[1])
	require.Nil(t, errs)
	err = manager.Resolve(ctx, "unknown", ids[1], ids[2])
	require.ErrorIs(t, err, dlq.ErrClaimed)
	require.NotErrorIs(t, err, dlq.ErrNotFound)
	var failed *delivery.ResultsError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, []delivery.Result{{ID: "unknown"}, {ID: ids[1], Err: dlq.ErrClaimed}, {ID: ids[2]}}, failed.Results)
	left, err = store.Count(ctx, dlq.Filter{})
	require.NoError(t, err)
	require.Equal(t, 1, left)

	require.ErrorIs(t, (*dlq.Manager)(nil).Resolve(ctx, "x"), dlq.ErrConfig)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, manager.Resolve(ended, ids[1]), context.Canceled)
}

// A lease for entries that nobody can requeue is told of.
func TestLeaseWithoutASenderIsToldOf(t *testing.T) {
	log := &log{}
	dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), &sender{}, dlq.Config{Lease: time.Minute, Logger: log.logger()})
	dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{Logger: log.logger()})
	require.Empty(t, log.events(t))
	dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{Lease: time.Minute, Logger: log.logger()})
	require.Equal(t, []map[string]any{{"level": "WARN", "msg": "config field has no effect", "field": "Config.Lease", "want": "a sender"}}, log.events(t))
}
