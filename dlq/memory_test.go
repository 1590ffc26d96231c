package dlq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/dlqtest"
)

func TestMemory(t *testing.T) {
	t.Run("New", func(t *testing.T) {
		dlqtest.TestStore(t, func(*testing.T) dlq.Store { return dlq.NewMemory(dlq.MemoryConfig{}) })
	})
	t.Run("Zero", func(t *testing.T) {
		dlqtest.TestStore(t, func(*testing.T) dlq.Store { return new(dlq.Memory) })
	})
}

func TestMemoryIsBounded(t *testing.T) {
	ctx := context.Background()
	memory := dlq.NewMemory(dlq.MemoryConfig{MaxEntries: 2})
	require.NoError(t, memory.Put(ctx, dlq.Entry{ID: "a"}))
	err := memory.Put(ctx, dlq.Entry{ID: "b"}, dlq.Entry{ID: "c"})
	require.ErrorIs(t, err, dlq.ErrFull)
	require.EqualError(t, err, "dlq: store is full: 1 of 2 entries are taken")
	count, err := memory.Count(ctx, dlq.Filter{})
	require.NoError(t, err)
	assert.Equal(t, 1, count, "a put that does not fit puts nothing")

	require.NoError(t, memory.Put(ctx, dlq.Entry{ID: "b"}, dlq.Entry{ID: "b"}, dlq.Entry{ID: "a"}))
	require.NoError(t, memory.Put(ctx, dlq.Entry{ID: "a", Error: "newer"}), "a replacement needs no room")
	require.ErrorIs(t, memory.Put(ctx, dlq.Entry{ID: "c"}), dlq.ErrFull)
	assert.Nil(t, memory.Delete(ctx, time.Now(), "a"))
	require.NoError(t, memory.Put(ctx, dlq.Entry{ID: "c"}))
}

func TestMemoryConfigFaultIsToldByEveryUse(t *testing.T) {
	ctx := context.Background()
	memory := dlq.NewMemory(dlq.MemoryConfig{MaxEntries: -1})
	require.ErrorIs(t, memory.Err(), dlq.ErrConfig)
	require.ErrorContains(t, memory.Err(), "MaxEntries is -1, want at least 1")
	require.ErrorIs(t, memory.Put(ctx), dlq.ErrConfig)
	_, errs := memory.Get(ctx, "a")
	require.ErrorIs(t, errs[0], dlq.ErrConfig)
	_, err := memory.List(ctx, dlq.Query{})
	require.ErrorIs(t, err, dlq.ErrConfig)

	manager := dlq.NewManager(memory, nil, dlq.Config{})
	require.ErrorIs(t, manager.Err(), dlq.ErrConfig)
	require.ErrorContains(t, manager.Err(), "MaxEntries")
}

// A purge lets others go on, and ends with its context.
func TestMemoryPurgesInParts(t *testing.T) {
	const count = 2500
	fill := func() *dlq.Memory {
		memory := dlq.NewMemory(dlq.MemoryConfig{})
		for i := range count {
			require.NoError(t, memory.Put(t.Context(), dlq.Entry{ID: fmt.Sprint(i), DeadAt: noon.Add(time.Duration(i%7) * time.Second)}))
		}
		return memory
	}
	memory := fill()
	_, errs := memory.Claim(t.Context(), dlq.Claim{Token: "token", Now: noon, Lease: time.Hour}, "0", "1000", "2499")
	require.Empty(t, errs)
	purged, err := memory.Purge(t.Context(), noon.Add(time.Minute), noon)
	require.NoError(t, err)
	assert.Equal(t, count-3, purged)

	memory = fill()
	purged, err = memory.Purge(&endsAfter{Context: t.Context(), calls: 2}, noon.Add(time.Minute), noon)
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 2000, purged)
	left, err := memory.Count(t.Context(), dlq.Filter{})
	require.NoError(t, err)
	assert.Equal(t, count-purged, left)
}

// endsAfter is a context that has ended when it was asked some times.
type endsAfter struct {
	context.Context //nolint:containedctx // it is one
	calls           int
}

func (c *endsAfter) Err() error {
	if c.calls--; c.calls < 0 {
		return context.Canceled
	}
	return nil
}

func BenchmarkMemoryPut(b *testing.B) {
	ctx := context.Background()
	memory := dlq.NewMemory(dlq.MemoryConfig{})
	ids := make([]string, dlq.DefaultMaxEntries)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		entry := dlq.Entry{ID: ids[i%len(ids)], DeadAt: noon.Add(time.Duration(i) * time.Millisecond)}
		if err := memory.Put(ctx, entry); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMemoryList(b *testing.B) {
	ctx := context.Background()
	memory := dlq.NewMemory(dlq.MemoryConfig{})
	for i := range 50_000 {
		if err := memory.Put(ctx, dlq.Entry{ID: fmt.Sprint(i), DeadAt: noon.Add(time.Duration(i) * time.Millisecond)}); err != nil {
			b.Fatal(err)
		}
	}
	first, err := memory.List(ctx, dlq.Query{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := memory.List(ctx, dlq.Query{Cursor: first.Next}); err != nil {
			b.Fatal(err)
		}
	}
}
