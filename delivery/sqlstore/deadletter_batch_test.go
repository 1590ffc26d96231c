package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

// TestLetterBatches has several calls executed in one transaction, and makes
// the same calls one after another on a dlq.Memory. Both have to return the
// same, and to hold the same entries afterwards.
func TestLetterBatches(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		checkLetterBatches(t, open(t, connectSQLite(t), sqlstore.Config{}))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		checkLetterBatches(t, open(t, connectPostgres(t), sqlstore.Config{TablePrefix: unique(t), InFlight: 1}))
	})
}

func checkLetterBatches(t *testing.T, store *sqlstore.Store) {
	stored := store.DeadLetters()
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		_, err := stored.Purge(ctx, firstDeadAt.Add(time.Hour), firstDeadAt.Add(time.Hour))
		require.NoError(t, err)
		ideal := dlq.NewMemory(dlq.MemoryConfig{})
		now := firstDeadAt
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "wait")) * time.Second)
			calls := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) letterCall { return drawLetterCall(t, now) }), 1, 8).Draw(t, "calls")
			got := together(t, store, stored, calls)
			for i, call := range calls {
				requireSameOutcome(t, call.do(ideal), got[i], "call %d, %s", i, call)
			}
			requireSameLetters(t, ideal, stored)
		}
	})
}

// together has the calls executed in one transaction.
func together(t *rapid.T, store *sqlstore.Store, letters dlq.Store, calls []letterCall) []letterOutcome {
	outcomes := make([]letterOutcome, len(calls))
	release := store.Hold()
	var group sync.WaitGroup
	defer group.Wait()
	defer release()
	for i, call := range calls {
		group.Go(func() { outcomes[i] = call.do(letters) })
		require.Eventually(t, func() bool { return store.Waiting() == i+1 }, eventuallyTimeout, 10*time.Microsecond)
	}
	return outcomes
}

// letterCall is a call of a method that changes entries.
type letterCall struct {
	method  string
	entries []dlq.Entry
	ids     []string
	token   string
	now     time.Time
}

func (c letterCall) String() string { return fmt.Sprintf("%s of %q by %q", c.method, c.ids, c.token) }

func drawLetterCall(t *rapid.T, now time.Time) letterCall {
	c := letterCall{
		method: rapid.SampledFrom([]string{"put", "put", "claim", "claim", "release", "remove", "remove", "delete"}).Draw(t, "method"),
		ids:    rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 3).Draw(t, "ids"),
		token:  rapid.SampledFrom([]string{"one", "two", ""}).Draw(t, "token"),
		now:    now,
	}
	if c.method == "claim" && c.token == "" { // is refused at once
		c.token = "three"
	}
	if c.method == "put" {
		for _, id := range c.ids {
			e := deadEntry(id, rapid.IntRange(0, 3).Draw(t, "second"))
			e.Error = rapid.SampledFrom([]string{"x", "y"}).Draw(t, "error")
			e.Reason = delivery.Reason(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "reason"))
			e.Envelope.Body = []byte(rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "body"))
			c.entries = append(c.entries, e)
		}
	}
	return c
}

type letterOutcome struct {
	entries []dlq.Entry
	errs    []error
}

func (c letterCall) do(store dlq.Store) letterOutcome {
	ctx := context.Background()
	switch c.method {
	case "put":
		return letterOutcome{errs: []error{store.Put(ctx, c.entries...)}}
	case "claim":
		entries, errs := store.Claim(ctx, dlq.Claim{Token: c.token, Now: c.now, Lease: lease}, c.ids...)
		return letterOutcome{entries: entries, errs: errs}
	case "release":
		return letterOutcome{errs: store.Release(ctx, c.token, c.ids...)}
	case "remove":
		return letterOutcome{errs: store.Remove(ctx, c.token, c.ids...)}
	default:
		return letterOutcome{errs: store.Delete(ctx, c.now, c.ids...)}
	}
}

func requireSameOutcome(t *rapid.T, want, got letterOutcome, message string, args ...any) {
	require.Len(t, got.errs, len(want.errs), append([]any{message}, args...)...)
	for i := range want.errs {
		require.ErrorIs(t, got.errs[i], want.errs[i], append([]any{message}, args...)...)
	}
	requireSameEntries(t, want.entries, got.entries)
}

// requireSameEntries treats no body and an empty one as the same.
func requireSameEntries(t *rapid.T, want, got []dlq.Entry) {
	require.Len(t, got, len(want))
	for i := range want {
		if len(want[i].Envelope.Body) == 0 {
			want[i].Envelope.Body = nil
		}
		require.Equal(t, want[i], got[i])
	}
}

func requireSameLetters(t *rapid.T, ideal, stored dlq.Store) {
	ctx := context.Background()
	for _, filter := range []dlq.Filter{{}, {Reason: "x"}} {
		query := dlq.Query{Filter: filter, Order: dlq.OldestFirst, Limit: 3}
		for more := true; more; more = query.Cursor != "" {
			want, err := ideal.List(ctx, query)
			require.NoError(t, err)
			got, err := stored.List(ctx, query)
			require.NoError(t, err)
			requireSameEntries(t, want.Entries, got.Entries)
			require.Equal(t, want.Next, got.Next)
			query.Cursor = want.Next
		}
		want, wantErr := ideal.Count(ctx, filter)
		got, gotErr := stored.Count(ctx, filter)
		require.NoError(t, errors.Join(wantErr, gotErr))
		require.Equal(t, want, got)
	}
	want, wantErr := ideal.Stats(ctx, 2)
	got, gotErr := stored.Stats(ctx, 2)
	require.NoError(t, errors.Join(wantErr, gotErr))
	for i := range want.Fingerprints {
		want.Fingerprints[i].Example = got.Fingerprints[i].Example // of any of them
	}
	require.Equal(t, want, got)
}
