package dlq_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

func TestRequeueSendsTheNextGeneration(t *testing.T) {
	ctx := context.Background()
	sender := &sender{}
	given := letter("a")
	given.Envelope.Generation = 2
	given.Envelope.ExpiresAt = time.Now().Add(time.Hour)
	expired := letter("b")
	expired.Reason = delivery.ReasonExpired
	expired.Envelope.ExpiresAt = time.Now().Add(-time.Hour)
	expired.Envelope.NotBefore = time.Now().Add(-2 * time.Hour)
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{}, given, expired)

	results, err := manager.Requeue(ctx, "a", "b")
	require.NoError(t, err)
	assert.Equal(t, []delivery.Result{{ID: "a"}, {ID: "b"}}, results)

	first, second := given.Envelope, expired.Envelope
	first.Generation, first.Attempt = 3, 0
	second.Generation, second.Attempt, second.ExpiresAt = 1, 0, time.Time{}
	assert.Equal(t, [][]delivery.Envelope{{first, second}}, sender.calls)
	assert.Empty(t, kept(t, manager))

	_, err = manager.Requeue(ctx, "a")
	require.ErrorIs(t, err, dlq.ErrNotFound)
	assert.Len(t, sender.sent(), 2)
}

// What was malformed can be handled once somebody has decided that it should be.
func TestRequeueMalformedSendsWhatThereIs(t *testing.T) {
	ctx := context.Background()
	sender := &sender{}
	readable := delivery.DeadLetter{
		ID: "readable", Reason: delivery.ReasonMalformed, Raw: []byte("raw"),
		Envelope: delivery.Envelope{Message: delivery.Message{
			ID: "m", Recipient: "r", Headers: map[string]string{"a": "b"}, ExpiresAt: time.Now().Add(-time.Hour),
		}, Generation: 1, Attempt: 2},
	}
	nameless, nobody := readable, readable
	nameless.ID, nameless.Envelope.ID = "nameless", ""
	nobody.ID, nobody.Envelope.Recipient = "nobody", ""
	sound := letter("sound")
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{}, readable, nameless, nobody, sound)

	_, err := manager.Requeue(ctx, "readable")
	require.ErrorIs(t, err, dlq.ErrNotReplayable)
	results, err := manager.RequeueMalformed(ctx, "readable", "nameless", "nobody", "sound")
	require.ErrorIs(t, err, dlq.ErrNotReplayable)
	require.ErrorIs(t, results[2].Err, delivery.ErrInvalid)
	want := readable.Envelope
	want.Body, want.Generation, want.Attempt, want.ExpiresAt = []byte("raw"), 2, 0, time.Time{}
	named, next := want, sound.Envelope
	named.ID = "nameless"
	next.Generation, next.Attempt = next.Generation+1, 0
	assert.Equal(t, [][]delivery.Envelope{{want, named, next}}, sender.calls)
	assert.Equal(t, []string{"nobody"}, kept(t, manager))
}

func TestRequeueTellsOfEveryID(t *testing.T) {
	ctx := context.Background()
	down := errors.New("down")
	all, _ := letters(6)
	all[2].Reason = delivery.ReasonMalformed
	all[3].Envelope.Recipient = "" // no publisher would take it
	sender := &sender{forward: partly(map[string]error{
		"message of letter-001": delivery.ErrOutcomeUnknown, "message of letter-004": down,
	})}
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
	manager := requeuer(t, store, sender, dlq.Config{}, all...)
	_, errs := store.Claim(ctx, dlq.Claim{Token: "somebody", Now: time.Now(), Lease: time.Hour}, "letter-005")
	require.Nil(t, errs)

	ids := []string{"letter-000", "letter-001", "letter-002", "letter-003", "letter-004", "letter-005", "nobody", "letter-001"}
	results, err := manager.Requeue(ctx, ids...)
	for i, want := range []error{
		nil, delivery.ErrOutcomeUnknown, dlq.ErrNotReplayable, dlq.ErrNotReplayable, down, dlq.ErrClaimed, dlq.ErrNotFound, delivery.ErrOutcomeUnknown,
	} {
		assert.Equal(t, ids[i], results[i].ID)
		require.ErrorIs(t, results[i].Err, want)
		if want != nil {
			require.ErrorIs(t, err, want)
		}
	}
	require.ErrorIs(t, results[3].Err, delivery.ErrInvalid)
	assert.Len(t, sender.sent(), 3)
	assert.Equal(t, ids[1:6], kept(t, manager))
	assert.ElementsMatch(t, ids[1:5], store.released, "what was not sent is free at once, what others hold is not touched")

	sender.forward = nil
	results, err = manager.Requeue(ctx, "letter-001", "letter-004")
	require.NoError(t, err, results)
}

func TestRequeueWithoutSender(t *testing.T) {
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{}, letter("a"))
	results, err := manager.Requeue(context.Background(), "a")
	require.ErrorIs(t, err, dlq.ErrNoSender)
	assert.Nil(t, results)
	assert.Equal(t, []string{"a"}, kept(t, manager))
}

func TestRequeueInBatches(t *testing.T) {
	all, ids := letters(250)
	sender := &sender{}
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{}, all...)
	results, err := manager.Requeue(context.Background(), append(ids, ids...)...)
	require.NoError(t, err)
	assert.Len(t, results, 500)
	assert.Len(t, sender.calls, 3)
	assert.Len(t, sender.sent(), 250, "an id that is given twice is sent once")
	assert.Empty(t, kept(t, manager))

	results, err = manager.Requeue(context.Background())
	require.NoError(t, err)
	assert.Empty(t, results)
}

func TestRequeueAnErrorOfTheCallIsThatOfAll(t *testing.T) {
	down := errors.New("down")
	for name, err := range map[string]error{
		"plain":         down,
		"other length":  &delivery.ResultsError{Results: []delivery.Result{{Err: down}}},
		"none of which": errors.Join(down, &delivery.ResultsError{Results: make([]delivery.Result, 2)}),
	} {
		t.Run(name, func(t *testing.T) {
			sender := &sender{forward: func(context.Context, []delivery.Envelope) error { return err }}
			manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{}, letter("a"), letter("b"))
			results, err := manager.Requeue(context.Background(), "a", "b")
			require.ErrorIs(t, err, down)
			require.ErrorIs(t, results[0].Err, down)
			require.ErrorIs(t, results[1].Err, down)
			assert.Len(t, kept(t, manager), 2)
		})
	}
}

// A publisher that refuses one envelope sends none of its call: the others
// must not stay for that.
func TestRequeueSendsTheRestWithoutTheRefused(t *testing.T) {
	all, ids := letters(4)
	sender := &sender{}
	sender.forward = func(ctx context.Context, envelopes []delivery.Envelope) error {
		if len(envelopes) == 4 {
			return partly(map[string]error{
				"message of letter-000": delivery.ErrNotSent, "message of letter-001": &delivery.TooLargeError{Field: "Body"},
				"message of letter-002": delivery.ErrNotSent, "message of letter-003": delivery.ErrNotSent,
			})(ctx, envelopes)
		}
		return nil
	}
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{}, all...)
	_, err := manager.Requeue(context.Background(), ids...)
	require.ErrorIs(t, err, delivery.ErrTooLarge)
	require.NotErrorIs(t, err, delivery.ErrNotSent)
	assert.Len(t, sender.calls, 2)
	assert.Equal(t, ids[1:2], kept(t, manager))

	// A sender that never sends is not asked forever.
	sender.forward = func(context.Context, []delivery.Envelope) error { return delivery.ErrNotSent }
	_, err = manager.Requeue(context.Background(), ids[1])
	require.ErrorIs(t, err, delivery.ErrNotSent)
	assert.Len(t, sender.calls, 3)
}

// The process dies after the sender's confirm and before the removal: the
// entry stays, and goes as the same generation when it is requeued again.
func TestRequeueAfterACrashSendsTheSameGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
		sender := &sender{}
		manager := requeuer(t, store, sender, dlq.Config{}, letter("a"))
		crash := errors.New("crash")
		store.remove = func(ids []string) []error { return slices.Repeat([]error{crash}, len(ids)) }

		results, err := manager.Requeue(ctx, "a")
		require.ErrorIs(t, err, dlq.ErrNotRemoved)
		require.ErrorIs(t, results[0].Err, crash)
		assert.Equal(t, []string{"a"}, kept(t, manager))

		store.remove = nil
		_, err = manager.Requeue(ctx, "a")
		require.NoError(t, err)
		sent := sender.sent()
		require.Len(t, sent, 2)
		assert.Equal(t, sent[0], sent[1])
		assert.Equal(t, 1, sent[1].Generation)
		assert.Empty(t, kept(t, manager))
	})
}

// The process dies while it holds the claim: nobody gets the entry before the
// lease ends, everybody afterwards.
func TestRequeueAfterACrashWithTheClaimHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := dlq.NewMemory(dlq.MemoryConfig{})
		sender := &sender{}
		manager := requeuer(t, store, sender, dlq.Config{}, letter("a"))
		_, errs := store.Claim(ctx, dlq.Claim{Token: "dead", Now: time.Now(), Lease: dlq.DefaultLease}, "a")
		require.Nil(t, errs)

		_, err := manager.Requeue(ctx, "a")
		require.ErrorIs(t, err, dlq.ErrClaimed)
		_, err = manager.Delete(ctx, "a")
		require.ErrorIs(t, err, dlq.ErrClaimed)
		wait(dlq.DefaultLease)
		_, err = manager.Requeue(ctx, "a")
		require.NoError(t, err)
		assert.Len(t, sender.sent(), 1)
	})
}

func TestRequeueOfTheSameEntriesAtOnceSendsEachOnce(t *testing.T) {
	all, ids := letters(30)
	sender := &sender{}
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{BatchSize: 7}, all...)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			results, _ := manager.Requeue(context.Background(), ids...)
			for _, result := range results {
				if result.Err != nil && !errors.Is(result.Err, dlq.ErrClaimed) && !errors.Is(result.Err, dlq.ErrNotFound) {
					t.Error(result.Err)
				}
			}
		})
	}
	group.Wait()
	assert.Len(t, sender.sent(), len(ids))
	assert.Empty(t, kept(t, manager))
}

// The same letter is put once more while it is being sent.
func TestRequeueKeepsWhatWasPutMeanwhile(t *testing.T) {
	ctx := context.Background()
	sender := &sender{}
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{}, letter("a"))
	newer := letter("a")
	newer.Error = "again"
	var nested error
	sender.forward = func(context.Context, []delivery.Envelope) error {
		sender.forward = nil
		require.NoError(t, manager.DeadLetter(ctx, newer))
		_, nested = manager.Requeue(ctx, "a")
		return nil
	}
	_, err := manager.Requeue(ctx, "a")
	require.ErrorIs(t, err, dlq.ErrNotRemoved)
	require.ErrorIs(t, err, dlq.ErrReplaced)
	require.ErrorIs(t, nested, dlq.ErrClaimed, "a put does not free what is being sent")

	entries, err := manager.Get(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, "again", entries[0].Error)
	_, err = manager.Requeue(ctx, "a")
	require.NoError(t, err)
	assert.Equal(t, sender.sent()[0], sender.sent()[1], "the same generation")
}

func TestRequeueOfWhatVanishedWhileSentIsFine(t *testing.T) {
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
	manager := requeuer(t, store, &sender{}, dlq.Config{}, letter("a"))
	store.remove = func(ids []string) []error { return slices.Repeat([]error{dlq.ErrNotFound}, len(ids)) }
	_, err := manager.Requeue(context.Background(), "a")
	require.NoError(t, err)
}

// Sending ends before the lease does, and leaves time to give the claim back.
func TestRequeueGivesTheSenderHalfOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		sender := &sender{forward: func(ctx context.Context, _ []delivery.Envelope) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{Lease: time.Minute}, letter("a"))
		begin := time.Now()
		_, err := manager.Requeue(ctx, "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 30*time.Second, time.Since(begin))
		sender.forward = nil
		_, err = manager.Requeue(ctx, "a")
		require.NoError(t, err, "the claim was given back")
	})
}

// What was confirmed is removed though the caller has gone; what was not tried
// yet isn't.
func TestRequeueWhenTheCallerGoes(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	all, ids := letters(4)
	sender := &sender{forward: func(context.Context, []delivery.Envelope) error {
		cancel()
		return nil
	}}
	manager := requeuer(t, dlq.NewMemory(dlq.MemoryConfig{}), sender, dlq.Config{BatchSize: 2}, all...)
	results, err := manager.Requeue(ctx, ids...)
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []delivery.Result{
		{ID: ids[0]}, {ID: ids[1]}, {ID: ids[2], Err: context.Canceled}, {ID: ids[3], Err: context.Canceled},
	}, results)
	assert.Equal(t, ids[2:], kept(t, manager))
}

func TestRequeueDoesNotTrustAStoreThatMiscounts(t *testing.T) {
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
	sender := &sender{}
	manager := requeuer(t, store, sender, dlq.Config{}, letter("a"), letter("b"), letter("c"))
	store.claim = func([]string) ([]dlq.Entry, []error) { return nil, nil }
	_, err := manager.Requeue(context.Background(), "a", "b", "c")
	require.ErrorContains(t, err, "store returned 0 entries for 3 ids")

	store.claim = func([]string) ([]dlq.Entry, []error) { return make([]dlq.Entry, 3), make([]error, 2) }
	_, err = manager.Requeue(context.Background(), "a", "b", "c")
	require.ErrorContains(t, err, "got 2 results for 3 entries")
	assert.Empty(t, sender.sent())

	store.claim = nil
	store.remove = func([]string) []error { return make([]error, 1) }
	_, err = manager.Requeue(context.Background(), "a", "b", "c")
	require.ErrorIs(t, err, dlq.ErrNotRemoved)
	assert.Len(t, kept(t, manager), 3)
}

// Whatever happens to letters, in whatever order: none is lost (each is kept,
// or was confirmed, or was deleted by somebody), and none is sent in another
// generation than the one after its own.
func TestNoLetterIsLost(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
			sender := &sender{}
			manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 3})
			all, ids := letters(6)
			put, gone := make(map[string]bool), make(map[string]bool)
			some := rapid.SliceOfN(rapid.SampledFrom(ids), 1, 6)
			failure := rapid.SampledFrom([]error{nil, nil, delivery.ErrOutcomeUnknown, delivery.ErrRefused, delivery.ErrNotSent})
			sender.forward = func(ctx context.Context, envelopes []delivery.Envelope) error {
				errs := make(map[string]error)
				for i := range envelopes {
					errs[envelopes[i].ID] = failure.Draw(r, "outcome")
				}
				return partly(errs)(ctx, envelopes)
			}
			for range rapid.IntRange(1, 30).Draw(r, "steps") {
				switch rapid.SampledFrom([]string{"put", "requeue", "crash", "delete", "claim", "wait"}).Draw(r, "step") {
				case "put":
					i := rapid.IntRange(0, 5).Draw(r, "letter")
					require.NoError(t, manager.DeadLetter(ctx, all[i]))
					put[ids[i]], gone[ids[i]] = true, false
				case "requeue":
					results, _ := manager.Requeue(ctx, some.Draw(r, "ids")...)
					for _, result := range results {
						gone[result.ID] = gone[result.ID] || result.Err == nil
					}
				case "crash":
					store.remove = func(ids []string) []error { return slices.Repeat([]error{context.DeadlineExceeded}, len(ids)) }
					_, _ = manager.Requeue(ctx, some.Draw(r, "ids")...)
					store.remove = nil
				case "delete":
					results, _ := manager.Delete(ctx, some.Draw(r, "ids")...)
					for _, result := range results {
						gone[result.ID] = gone[result.ID] || result.Err == nil
					}
				case "claim":
					store.Claim(ctx, dlq.Claim{Token: "another", Now: time.Now(), Lease: time.Minute}, some.Draw(r, "ids")...)
				case "wait":
					wait(40 * time.Second)
				}
				var want []string
				for _, id := range ids {
					if put[id] && !gone[id] {
						want = append(want, id)
					}
				}
				require.Len(t, kept(t, manager), len(want))
				require.Subset(t, kept(t, manager), want)
				for _, envelope := range sender.sent() {
					require.Equal(t, 1, envelope.Generation)
					require.Zero(t, envelope.Attempt)
				}
			}
		})
	})
}

func BenchmarkRequeue(b *testing.B) {
	ctx := context.Background()
	all, ids := letters(100)
	discard := dlq.Sender(forwardFunc(func(context.Context, ...delivery.Envelope) error { return nil }))
	manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), discard, dlq.Config{})
	b.ReportAllocs()
	for b.Loop() {
		if err := manager.DeadLetter(ctx, all...); err != nil {
			b.Fatal(err)
		}
		if _, err := manager.Requeue(ctx, ids...); err != nil {
			b.Fatal(err)
		}
	}
}
