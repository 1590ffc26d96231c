package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

// A store that is full refuses letters as a whole, and can be emptied.
func TestRedisOutOfMemory(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	client := connect(t, server.URL())
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	var kept []string
	fill := func() error {
		for {
			var batch []dlq.Entry
			for i := range 4 {
				e := entry(fmt.Sprint(len(kept)+i), len(kept)+i)
				e.Envelope.Body = bytes.Repeat([]byte("x"), 64<<10)
				batch = append(batch, e)
			}
			if err := store.Put(t.Context(), batch...); err != nil {
				return err
			}
			for i := range batch {
				kept = append(kept, batch[i].ID)
			}
		}
	}
	limit := func(limit string) { require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", limit).Err()) }
	limit("16mb")
	require.NoError(t, store.SaveJob(t.Context(), dlq.Job{ID: "job", Status: dlq.JobRunning}))
	requireFull := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, dlq.ErrFull)
		require.ErrorIs(t, err, redisstore.ErrUnavailable)
		require.ErrorContains(t, err, "OOM")
		requireAudit(t, client, prefix, kept...)
	}
	requireFull(fill())
	require.Greater(t, len(kept), 20)
	job := dlq.Job{ID: "job", Status: dlq.JobRunning, Version: 1}
	// To be sure that there is nothing left for the smallest change.
	limit("1mb")
	requireFull(store.Put(t.Context(), entry("new", 0)))
	requireFull(store.Put(t.Context(), entry("0", 0)))
	require.Error(t, client.Set(t.Context(), "key", "value", 0).Err())
	requireFull(store.SaveJob(t.Context(), dlq.Job{ID: "new job", Status: dlq.JobRunning}))
	require.NoError(t, store.SaveJob(t.Context(), job), "progress is stored all the same")

	requireClaimed(t, store, "token", kept[:8]...)
	require.NoError(t, errors.Join(store.Remove(t.Context(), "token", kept[:4]...)...))
	require.NoError(t, errors.Join(store.Release(t.Context(), "token", kept[4:8]...)...))
	require.NoError(t, errors.Join(store.Delete(t.Context(), start, kept[4:8]...)...))
	kept = kept[8:]
	requireKept(t, store, kept...)
	requireAudit(t, client, prefix, kept...)
	stats, err := store.Stats(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, len(kept), stats.Total)
	purged, err := store.Purge(t.Context(), start.Add(24*time.Hour), start)
	require.NoError(t, err)
	require.Equal(t, len(kept), purged)
	requireAudit(t, client, prefix)

	limit("0")
	require.NoError(t, store.Put(t.Context(), entry("new", 0)))
	requireKept(t, store, "new")
}

// Memory ends between two parts of one call: what was put is told as unknown,
// not as none.
func TestRedisOutOfMemoryHalfway(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{Args: []string{"--maxmemory", "16mb"}})
	client := connect(t, server.URL())
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	var entries []dlq.Entry
	for i := range 8 {
		e := entry(fmt.Sprint(i), i)
		e.Envelope.Body = make([]byte, 3<<20)
		entries = append(entries, e)
	}
	err := store.Put(t.Context(), entries...)
	require.ErrorIs(t, err, redisstore.ErrUnavailable)
	require.NotErrorIs(t, err, dlq.ErrFull)
	kept := audit(t, client, prefix)
	require.NotEmpty(t, kept)
	require.Less(t, len(kept), 8)
}
