package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency"
)

var (
	errDown = errors.New("connection refused")
	errWork = errors.New("work failed")
)

var key = idempotency.FromID("orders", "42", 0)

func newGuard(t *testing.T, store idempotency.Store) *idempotency.Guard {
	guard := idempotency.NewGuard(store, idempotency.GuardConfig{})
	require.NoError(t, guard.Err())
	return guard
}

func mustClaim(t *testing.T, guard *idempotency.Guard, attempt int) (context.Context, *idempotency.Claim) {
	t.Helper()
	ctx, claim, err := guard.Claim(t.Context(), key, attempt)
	require.NoError(t, err)
	require.NotNil(t, claim)
	return ctx, claim
}

func claimError(t *testing.T, guard *idempotency.Guard, attempt int) error {
	t.Helper()
	ctx, claim, err := guard.Claim(t.Context(), key, attempt)
	require.Error(t, err)
	require.Nil(t, claim)
	require.Equal(t, t.Context(), ctx)
	return err
}

func TestGuardClaims(t *testing.T) {
	guard := newGuard(t, newFaulty())

	ctx, first := mustClaim(t, guard, 0)
	require.NoError(t, ctx.Err())
	err := claimError(t, guard, 0)
	assert.Same(t, idempotency.ErrBusy, err)

	require.NoError(t, first.Release(t.Context()))
	assert.Equal(t, idempotency.ErrSettled, context.Cause(ctx))
	_, second := mustClaim(t, guard, 0)
	assert.NotEqual(t, first.Token(), second.Token())

	require.NoError(t, second.Schedule(t.Context(), 1, time.Minute))
	err = claimError(t, guard, 0)
	require.ErrorIs(t, err, idempotency.ErrDuplicate)
	var duplicate *idempotency.DuplicateError
	require.ErrorAs(t, err, &duplicate)
	assert.Equal(t, idempotency.DuplicateError{Holder: second.Token(), Stale: true}, *duplicate)
	require.ErrorContains(t, err, "later attempt")

	_, third := mustClaim(t, guard, 1)
	require.NoError(t, third.Complete(t.Context()))
	err = claimError(t, guard, 1)
	require.ErrorIs(t, err, idempotency.ErrDuplicate)
	require.ErrorAs(t, err, &duplicate)
	assert.Equal(t, idempotency.DuplicateError{Holder: third.Token()}, *duplicate)
	require.ErrorContains(t, err, "done before")

	// Other generations and scopes are other work.
	for _, other := range []idempotency.Key{idempotency.FromID("orders", "42", 1), idempotency.FromID("mail", "42", 0)} {
		_, claim, err := guard.Claim(t.Context(), other, 0)
		require.NoError(t, err)
		require.NoError(t, claim.Complete(t.Context()))
	}
}

func TestGuardClaimsAs(t *testing.T) {
	guard := newGuard(t, newFaulty())
	_, claim, err := guard.ClaimAs(t.Context(), key, "message 1", 0)
	require.NoError(t, err)
	assert.Equal(t, "message 1", claim.Token())
	_, again, err := guard.ClaimAs(t.Context(), key, "message 1", 0)
	require.NoError(t, err, "the same token again")
	require.NoError(t, again.Complete(t.Context()))
	_, _, err = guard.ClaimAs(t.Context(), key, "message 2", 0)
	var duplicate *idempotency.DuplicateError
	require.ErrorAs(t, err, &duplicate)
	assert.Equal(t, "message 1", duplicate.Holder)
	require.NoError(t, claim.Complete(t.Context()))

	_, _, err = guard.ClaimAs(t.Context(), key, "", 0)
	require.ErrorIs(t, err, idempotency.ErrInvalid)
	require.NotErrorIs(t, err, idempotency.ErrUnavailable)
}

func TestGuardSettlesOnce(t *testing.T) {
	ctx := context.Background()
	settle := map[string]func(*idempotency.Claim) error{
		"complete": func(c *idempotency.Claim) error { return c.Complete(ctx) },
		"schedule": func(c *idempotency.Claim) error { return c.Schedule(ctx, 1, time.Minute) },
		"release":  func(c *idempotency.Claim) error { return c.Release(ctx) },
	}
	for name, step := range settle {
		t.Run(name, func(t *testing.T) {
			store := newFaulty()
			guard := newGuard(t, store)
			workCtx, claim := mustClaim(t, guard, 0)

			store.set(store.before, name, errDown)
			err := step(claim)
			require.ErrorIs(t, err, idempotency.ErrUnavailable)
			require.ErrorIs(t, err, errDown)
			var unavailable *idempotency.UnavailableError
			require.ErrorAs(t, err, &unavailable)
			assert.Equal(t, name, unavailable.Op)
			require.NoError(t, workCtx.Err(), "an unsettled claim goes on")

			// The step is taken, but its answer gets lost.
			store.set(store.before, name, nil)
			store.set(store.after, name, errDown)
			require.ErrorIs(t, step(claim), idempotency.ErrUnavailable)

			store.set(store.after, name, nil)
			require.NoError(t, step(claim))
			for _, again := range settle {
				assert.Same(t, idempotency.ErrSettled, again(claim))
			}
			assert.Equal(t, 3, store.count(name))
			assert.Equal(t, idempotency.ErrSettled, context.Cause(workCtx))
		})
	}
}

func TestFenceOutlivesTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := newGuard(t, newFaulty())
		_, claim := mustClaim(t, guard, 0)
		require.NoError(t, claim.Schedule(t.Context(), 1, 100*24*time.Hour))
		time.Sleep(100*24*time.Hour + 23*time.Hour)
		require.ErrorIs(t, claimError(t, guard, 0), idempotency.ErrDuplicate)
		_, next := mustClaim(t, guard, 1)
		require.NoError(t, next.Schedule(t.Context(), 2, 1<<63-1), "the sum has no room")
		require.ErrorIs(t, claimError(t, guard, 1), idempotency.ErrDuplicate)
	})
}

func TestGuardFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		store.set(store.before, "claim", errDown)
		err := claimError(t, guard, 0)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.ErrorIs(t, err, errDown)
		require.EqualError(t, err, "idempotency: store unavailable: claim: connection refused")

		// A timeout within the store is no matter of the caller's context.
		store.set(store.before, "claim", context.DeadlineExceeded)
		err = claimError(t, guard, 0)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.NotErrorIs(t, err, context.DeadlineExceeded)

		store.set(store.before, "claim", nil)
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err = guard.Claim(cancelled, key, 0)
		assert.Equal(t, context.Canceled, err)

		// The answer takes longer than the lease.
		store.hang("claim", 2*time.Minute)
		err = claimError(t, guard, 0)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.ErrorIs(t, err, idempotency.ErrLost)
	})
}

// oracle answers what no store should.
type oracle struct{ idempotency.Store }

func (oracle) Claim(context.Context, string, string, int, time.Duration) (idempotency.Answer, error) {
	return idempotency.Answer{}, nil
}

func TestGuardMistrustsEmptyAnswers(t *testing.T) {
	guard := newGuard(t, oracle{})
	require.ErrorIs(t, claimError(t, guard, 0), idempotency.ErrUnavailable)
}

// The claim is executed, its answer gets lost. The next claim takes the lease
// over that it left; one more finds it busy.
func TestGuardTakesOverWhatALostClaimLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		store.set(store.after, "claim", errDown)
		for range 3 {
			require.ErrorIs(t, claimError(t, guard, 0), idempotency.ErrUnavailable)
		}
		store.set(store.after, "claim", nil)
		require.Same(t, idempotency.ErrBusy, claimError(t, newGuard(t, store), 0), "another process knows nothing of it")
		_, claim := mustClaim(t, guard, 0)
		require.Same(t, idempotency.ErrBusy, claimError(t, guard, 0))
		require.NoError(t, claim.Release(t.Context()))
		_, claim = mustClaim(t, guard, 0)
		require.NoError(t, claim.Release(t.Context()))
	})
}

func TestGuardRemembersFewLostClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		store.set(store.before, "claim", errDown)
		for i := range 10_000 {
			_, _, err := guard.Claim(t.Context(), idempotency.FromID("orders", strconv.Itoa(i), 0), 0)
			require.ErrorIs(t, err, idempotency.ErrUnavailable)
		}
		// They are worth nothing once the lease that they may have left is over.
		time.Sleep(2 * time.Minute)
		store.set(store.before, "claim", nil)
		for i := range 10_000 {
			_, claim, err := guard.Claim(t.Context(), idempotency.FromID("orders", strconv.Itoa(i), 0), 0)
			require.NoError(t, err)
			require.NoError(t, claim.Complete(t.Context()))
		}
	})
}

func TestGuardConfig(t *testing.T) {
	memory := idempotency.NewMemory(idempotency.MemoryConfig{})
	var noMemory *idempotency.Memory
	for _, test := range []struct {
		name   string
		guard  *idempotency.Guard
		faults []string
	}{
		{"nil", nil, []string{"want one from NewGuard"}},
		{"zero", &idempotency.Guard{}, []string{"want one from NewGuard"}},
		{"no store", idempotency.NewGuard(nil, idempotency.GuardConfig{}), []string{"store is nil"}},
		{"nil store", idempotency.NewGuard(noMemory, idempotency.GuardConfig{}), []string{"Memory is empty"}},
		{"bad store", idempotency.NewGuard(idempotency.NewMemory(idempotency.MemoryConfig{Shards: -1}), idempotency.GuardConfig{}), []string{"Shards is -1"}},
		{"short lease", idempotency.NewGuard(memory, idempotency.GuardConfig{Lease: 1}), []string{"Lease is 1ns, want at least 10ms"}},
		{"short window", idempotency.NewGuard(memory, idempotency.GuardConfig{Window: time.Minute}), []string{"Window is 1m0s, want more than Lease, which is 1m0s"}},
		{"all bad", idempotency.NewGuard(nil, idempotency.GuardConfig{Lease: -1, Window: -1}), []string{"Lease is -1ns", "Window is -1ns", "store is nil"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.ErrorIs(t, test.guard.Err(), idempotency.ErrConfig)
			for _, fault := range test.faults {
				require.ErrorContains(t, test.guard.Err(), fault)
			}
			require.ErrorIs(t, claimError(t, test.guard, 0), idempotency.ErrConfig)
			_, _, err := test.guard.ClaimAs(t.Context(), key, "token", 0)
			require.ErrorIs(t, err, idempotency.ErrConfig)
			err = test.guard.Do(t.Context(), key, func(context.Context) error { return nil })
			require.ErrorIs(t, err, idempotency.ErrConfig)
		})
	}
}

func TestNilArguments(t *testing.T) {
	guard := newGuard(t, newFaulty())
	_, _, err := guard.Claim(nil, key, 0) //nolint:staticcheck // nil is the case
	require.ErrorIs(t, err, idempotency.ErrInvalid)
	require.ErrorIs(t, guard.Do(t.Context(), key, nil), idempotency.ErrInvalid)
	_, claim := mustClaim(t, guard, 0)
	require.ErrorIs(t, claim.Complete(nil), idempotency.ErrInvalid) //nolint:staticcheck // nil is the case
	require.NoError(t, claim.Complete(t.Context()))
	for _, empty := range []*idempotency.Claim{nil, {}} {
		require.ErrorIs(t, empty.Complete(t.Context()), idempotency.ErrSettled)
		require.ErrorIs(t, empty.Schedule(t.Context(), 0, 0), idempotency.ErrSettled)
		require.ErrorIs(t, empty.Release(t.Context()), idempotency.ErrSettled)
		assert.Empty(t, empty.Token())
	}
}

func TestDo(t *testing.T) {
	guard := newGuard(t, newFaulty())
	runs := 0
	do := func(work func(ctx context.Context) error) error {
		return guard.Do(t.Context(), key, func(ctx context.Context) error {
			runs++
			return work(ctx)
		})
	}
	require.Same(t, errWork, do(func(context.Context) error { return errWork }))
	assert.PanicsWithValue(t, "work panics", func() {
		_ = do(func(context.Context) error { panic("work panics") })
	})
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = do(func(context.Context) error {
			runtime.Goexit()
			return nil
		})
	}()
	<-exited
	// After each of these the key is free again.
	require.NoError(t, do(func(ctx context.Context) error {
		require.NoError(t, ctx.Err())
		assert.ErrorIs(t, do(func(context.Context) error { return nil }), idempotency.ErrBusy)
		return nil
	}))
	assert.Equal(t, 4, runs)
	require.ErrorIs(t, do(func(context.Context) error { return nil }), idempotency.ErrDuplicate)
	assert.Equal(t, 4, runs)
}

func TestDoSettlesAfterItsContext(t *testing.T) {
	store := newFaulty()
	guard := newGuard(t, store)
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, guard.Do(ctx, key, func(ctx context.Context) error {
		cancel()
		return nil
	}))
	assert.Equal(t, 1, store.count("complete"))
	require.ErrorIs(t, claimError(t, guard, 0), idempotency.ErrDuplicate)
}

func TestDoTellsWhatIsNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		var logs bytes.Buffer
		guard := idempotency.NewGuard(store, idempotency.GuardConfig{Logger: slog.New(slog.NewTextHandler(&logs, nil))})
		do := func(id string, work error) error {
			return guard.Do(t.Context(), idempotency.FromID("orders", id, 0), func(context.Context) error { return work })
		}
		store.set(store.before, "complete", errDown)
		err := do("42", nil)
		require.ErrorIs(t, err, idempotency.ErrUnrecorded)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.ErrorIs(t, err, errDown)
		// It was given up: the lease runs out.
		time.Sleep(time.Minute)

		go func() {
			time.Sleep(time.Second)
			store.set(store.before, "complete", nil)
		}()
		require.NoError(t, do("42", nil), "a short outage is waited for")
		require.ErrorIs(t, do("42", nil), idempotency.ErrDuplicate)

		// Work that fails tells its own error, whatever the store does.
		store.set(store.before, "release", errDown)
		require.Same(t, errWork, do("43", errWork))
		assert.Contains(t, logs.String(), "claim not released")
	})
}

// How long Do tries to settle is no context of the caller's, and hides no cause.
func TestDoTellsWhyItIsNotRecordedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, cause := range map[string]error{"hangs": nil, "fails, and then hangs": errDown} {
			store := newFaulty()
			guard := newGuard(t, store)
			store.set(store.before, "complete", cause)
			store.hang("complete", time.Hour)
			if cause != nil {
				store.hang("complete", 0)
				time.AfterFunc(time.Second, func() { store.hang("complete", time.Hour) })
			}
			err := guard.Do(t.Context(), key, func(context.Context) error { return nil })
			require.ErrorIs(t, err, idempotency.ErrUnrecorded, name)
			require.ErrorIs(t, err, idempotency.ErrUnavailable, name)
			require.NotErrorIs(t, err, context.DeadlineExceeded, name)
			if cause != nil {
				require.ErrorIs(t, err, cause, name)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestDoWithoutItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		err := guard.Do(t.Context(), key, func(ctx context.Context) error {
			store.set(store.before, "renew", errDown)
			<-ctx.Done()
			assert.Equal(t, idempotency.ErrLost, context.Cause(ctx))
			_, err := store.Memory.Claim(context.Background(), key.String(), "other", 0, time.Hour)
			return err
		})
		require.ErrorIs(t, err, idempotency.ErrUnrecorded)
		require.ErrorIs(t, err, idempotency.ErrLost)
	})
}

func TestErrors(t *testing.T) {
	require.NoError(t, idempotency.Unavailable(t.Context(), "claim", nil))
	for _, err := range []error{idempotency.ErrLost, idempotency.ErrInvalid, &idempotency.UnavailableError{Op: "claim", Err: errDown}} {
		assert.Equal(t, err, idempotency.Unavailable(t.Context(), "claim", err))
	}
	duplicate := error(&idempotency.DuplicateError{})
	require.NotErrorIs(t, duplicate, idempotency.ErrBusy)
	assert.Equal(t, "claimed busy done stale State(0)", func() string {
		var text bytes.Buffer
		for _, state := range []idempotency.State{idempotency.Claimed, idempotency.Busy, idempotency.Done, idempotency.Stale} {
			text.WriteString(state.String() + " ")
		}
		return text.String() + idempotency.State(0).String()
	}())
	assert.Equal(t, "in time", idempotency.InTime.String())
	assert.Equal(t, "late", idempotency.Late.String())
	assert.Equal(t, "Completion(7)", idempotency.Completion(7).String())
}

func BenchmarkGuardClaimRelease(b *testing.B) {
	b.ReportAllocs()
	guard := idempotency.NewGuard(idempotency.NewMemory(idempotency.MemoryConfig{}), idempotency.GuardConfig{})
	ctx := context.Background()
	for b.Loop() {
		_, claim, err := guard.Claim(ctx, key, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := claim.Release(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGuardDuplicate(b *testing.B) {
	b.ReportAllocs()
	guard := idempotency.NewGuard(idempotency.NewMemory(idempotency.MemoryConfig{}), idempotency.GuardConfig{})
	ctx := context.Background()
	if err := guard.Do(ctx, key, func(context.Context) error { return nil }); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		_, _, _ = guard.Claim(ctx, key, 0)
	}
}

func TestHoldTellsOfItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		var ends []error
		hold := func() *idempotency.Claim {
			claim, err := guard.Hold(t.Context(), key, "", 0, func(cause error) { ends = append(ends, cause) })
			require.NoError(t, err)
			return claim
		}
		require.NoError(t, hold().Release(t.Context()))
		assert.Equal(t, []error{idempotency.ErrSettled}, ends)

		claim := hold()
		require.NoError(t, store.Memory.Release(t.Context(), key.String(), claim.Token()))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, []error{idempotency.ErrSettled, idempotency.ErrLost}, ends)
		require.ErrorIs(t, claim.Schedule(t.Context(), 1, 0), idempotency.ErrLost)
		assert.Len(t, ends, 2, "once")

		_, err := guard.Hold(t.Context(), key, "", 0, nil)
		require.ErrorIs(t, err, idempotency.ErrInvalid)
		_, err = new(idempotency.Guard).Hold(t.Context(), key, "", 0, func(error) {})
		require.ErrorIs(t, err, idempotency.ErrConfig)
	})
}

// Work that shares its key with other work learns whose duplicate it is, also
// when the answer to the other's claim was lost.
func TestHoldNamesItsHolder(t *testing.T) {
	ignore := func(error) {}
	for name, settle := range map[string]struct {
		step  func(ctx context.Context, claim *idempotency.Claim) error
		stale bool
	}{
		"done":  {step: func(ctx context.Context, claim *idempotency.Claim) error { return claim.Complete(ctx) }},
		"stale": {step: func(ctx context.Context, claim *idempotency.Claim) error { return claim.Schedule(ctx, 1, 0) }, stale: true},
	} {
		t.Run(name, func(t *testing.T) {
			guard := newGuard(t, newFaulty())
			claim, err := guard.Hold(t.Context(), key, "a/1", 0, ignore)
			require.NoError(t, err)
			require.NoError(t, settle.step(t.Context(), claim))
			var duplicate *idempotency.DuplicateError
			_, err = guard.Hold(t.Context(), key, "b", 0, ignore)
			require.ErrorAs(t, err, &duplicate)
			assert.Equal(t, "a/1", duplicate.Of)
			assert.Equal(t, settle.stale, duplicate.Stale)
			assert.Equal(t, claim.Token(), duplicate.Holder)
		})
	}
}
