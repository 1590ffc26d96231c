package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/dlqtest"
	"github.com/esh3artech/barid/dlq/redisstore"
)

func TestStoreIsAStore(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	dlqtest.TestStore(t, func(t *testing.T) dlq.Store {
		servers.Parallel(t)
		prefix := servers.Unique(t)
		t.Cleanup(func() { audit(t, client, prefix) })
		return open(t, client, redisstore.Config{Prefix: prefix})
	})
	dlqtest.TestJobStore(t, func(t *testing.T) dlq.JobStore {
		servers.Parallel(t)
		return open(t, client, redisstore.Config{})
	})
}

// The scripts vanish between any two steps.
func TestScriptsAreSentAgain(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	client := connect(t, server.URL())
	store := open(t, client, redisstore.Config{})
	flush := func() { require.NoError(t, client.ScriptFlush(t.Context()).Err()) }
	flush()
	require.NoError(t, store.Put(t.Context(), entry("a", 0), entry("b", 1), entry("c", 2)))
	flush()
	requireClaimed(t, store, "token", "a", "b")
	flush()
	require.Equal(t, []error{nil}, store.Release(t.Context(), "token", "a"))
	flush()
	require.Equal(t, []error{nil}, store.Remove(t.Context(), "token", "b"))
	flush()
	require.Equal(t, []error{nil}, store.Delete(t.Context(), start, "a"))
	flush()
	stats, err := store.Stats(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, 1, stats.Total)
	flush()
	purged, err := store.Purge(t.Context(), start.Add(time.Hour), start)
	require.NoError(t, err)
	require.Equal(t, 1, purged)
}

func TestPurgeBeforeTheZeroTimeIsNotForAll(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	store := open(t, client, redisstore.Config{})
	require.NoError(t, store.Put(t.Context(), entry("a", 0)))
	purged, err := store.Purge(t.Context(), time.Time{}, start)
	require.NoError(t, err)
	require.Zero(t, purged)
	requireKept(t, store, "a")
}

func TestPurgeInBatches(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	var entries []dlq.Entry
	for i := range 1000 {
		entries = append(entries, entry(fmt.Sprint(i), i))
	}
	require.NoError(t, store.Put(t.Context(), entries...))
	requireClaimed(t, store, "token", "0", "300", "999")
	counter := countTrips(client)
	purged, err := store.Purge(t.Context(), entries[999].DeadAt.Add(time.Second), start)
	require.NoError(t, err)
	require.Equal(t, 997, purged)
	require.LessOrEqual(t, counter.commands["evalsha"], 4)
	requireKept(t, store, "0", "300", "999")
	requireAudit(t, client, prefix, "0", "300", "999")
}

// Times that the scores of a sorted set could not tell apart, and those that 64
// bits can't hold.
func TestTimesFarAway(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	store := open(t, client, redisstore.Config{})
	var want []string
	for i, at := range []time.Time{
		{}, time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC), time.Unix(-1, 0), time.Unix(0, 0), start,
		time.Date(9999, 12, 31, 23, 59, 59, 999_998_000, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC),
	} {
		e := entry(fmt.Sprint(i), 0)
		e.DeadAt, e.FirstFailedAt = at, at
		require.NoError(t, store.Put(t.Context(), e))
		want = append(want, e.ID)
		got, errs := store.Get(t.Context(), e.ID)
		require.NoError(t, errors.Join(errs...))
		require.True(t, got[0].DeadAt.Equal(at), "%s came back as %s", at, got[0].DeadAt)
	}
	for _, query := range []dlq.Query{
		{Order: dlq.OldestFirst, Limit: 1},
		{Order: dlq.OldestFirst, Limit: 2, Filter: dlq.Filter{Since: time.Unix(math.MinInt64/2, 0), Until: time.Unix(math.MaxInt64/2, 0)}},
	} {
		require.Equal(t, want, walk(t, store, query))
	}
	future := entry("year 10000", 0)
	future.DeadAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	require.ErrorIs(t, store.Put(t.Context(), entry("a", 0), future), dlq.ErrInvalid)
	require.Len(t, walk(t, store, dlq.Query{}), len(want))
}

func walk(t *testing.T, store dlq.Store, query dlq.Query) (ids []string) {
	for {
		page, err := store.List(t.Context(), query)
		require.NoError(t, err)
		for i := range page.Entries {
			ids = append(ids, page.Entries[i].ID)
		}
		if query.Cursor = page.Next; query.Cursor == "" {
			return ids
		}
	}
}

// A page of large entries does not go over the wire in one go, which the
// client's timeouts would not suffer.
func TestLargeBodies(t *testing.T) {
	client := connect(t, shared.RedisURL(t)+"?read_timeout=1s&write_timeout=1s")
	store := open(t, client, redisstore.Config{})
	const count = 40
	body := bytes.Repeat([]byte("\x00\xff 16 bytes long!"), 1<<16)
	var entries []dlq.Entry
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
		e := entry(ids[i], i)
		e.Envelope.Body, e.Raw = body, body[:1<<10]
		entries = append(entries, e)
	}
	require.NoError(t, store.Put(t.Context(), entries...))
	requireBodies := func(got []dlq.Entry) {
		t.Helper()
		require.Len(t, got, count)
		for i := range got {
			require.Equal(t, ids[i], got[i].ID)
			require.True(t, bytes.Equal(body, got[i].Envelope.Body))
			require.True(t, bytes.Equal(body[:1<<10], got[i].Raw))
		}
	}
	got, errs := store.Get(t.Context(), ids...)
	require.NoError(t, errors.Join(errs...))
	requireBodies(got)
	page, err := store.List(t.Context(), dlq.Query{Order: dlq.OldestFirst})
	require.NoError(t, err)
	requireBodies(page.Entries)
	got, errs = store.Claim(t.Context(), dlq.Claim{Token: "token", Now: start, Lease: lease}, ids...)
	require.NoError(t, errors.Join(errs...))
	requireBodies(got)
	require.NoError(t, errors.Join(store.Remove(t.Context(), "token", ids...)...))
}

func TestRoundTrips(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	store := open(t, client, redisstore.Config{})
	require.NoError(t, store.Put(t.Context(), entry("first", 0)))
	var entries []dlq.Entry
	for i := range 256 {
		e := entry(fmt.Sprint(i), i)
		e.Envelope.Recipient = fmt.Sprint("recipient ", i%128)
		entries = append(entries, e)
	}
	trips := countTrips(client)
	require.NoError(t, store.Put(t.Context(), entries...))
	require.Equal(t, 1, trips.count, "many entries are put in one round trip")

	entries = entries[:0]
	for i := range 2000 {
		entries = append(entries, entry(fmt.Sprint("other ", i), i))
	}
	require.NoError(t, store.Put(t.Context(), entries...))
	trips.reset()
	page, err := store.List(t.Context(), dlq.Query{Filter: dlq.Filter{Recipient: "recipient 7", Type: "order", Source: "sms"}})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	require.Equal(t, 4, trips.count, "counts, index, heads, entries")
	require.Equal(t, 4, trips.commands["hmget"], "only what the narrowest index has is read")

	trips.reset()
	_, err = store.List(t.Context(), dlq.Query{Filter: dlq.Filter{Type: "order"}, Limit: 10})
	require.NoError(t, err)
	require.LessOrEqual(t, trips.commands["hmget"], 21, "an index that fits is read no further than needed")

	trips.reset()
	stats, err := store.Stats(t.Context(), 10)
	require.NoError(t, err)
	require.Equal(t, 2257, stats.Total)
	count, err := store.Count(t.Context(), dlq.Filter{})
	require.NoError(t, err)
	require.Equal(t, 2257, count)
	require.LessOrEqual(t, trips.commands["hmget"], 1, "no entry is read but an example of each fingerprint")
	require.Equal(t, 3, trips.count)
}

// Nothing fits all fields though much fits each: the scan ends with ctx.
func TestScansEndWithTheirContext(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	store := open(t, client, redisstore.Config{})
	var entries []dlq.Entry
	for i := range 1500 {
		e := entry(fmt.Sprint(i), i)
		e.Source, e.Envelope.Type = fmt.Sprint("source ", i%2), fmt.Sprint("type ", i%2)
		entries = append(entries, e)
	}
	require.NoError(t, store.Put(t.Context(), entries...))
	query := dlq.Query{Filter: dlq.Filter{Source: "source 0", Type: "type 1"}}
	require.Empty(t, walk(t, store, query))
	ctx, cancel := context.WithCancel(t.Context())
	trips := countTrips(client)
	trips.onTrip = func() {
		if trips.commands["hmget"] >= 500 {
			cancel()
		}
	}
	_, err := store.List(ctx, query)
	require.Equal(t, context.Canceled, err)
	require.Equal(t, 500, trips.commands["hmget"])
}

// Entries go and move between the reads of one page: others fill it, and none
// comes at a place that it has left.
func TestEntriesMoveWhileAPageIsRead(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t)
	store, other := open(t, client, redisstore.Config{Prefix: prefix}), open(t, connect(t, shared.RedisURL(t)), redisstore.Config{Prefix: prefix})
	for i := range 10 {
		require.NoError(t, store.Put(t.Context(), entry(fmt.Sprint(i), i)))
	}
	trips := countTrips(client)
	trips.onTrip = func() {
		if trips.commands["hmget"] == 4 { // the heads have been read
			trips.onTrip = nil
			assert.NoError(t, errors.Join(other.Delete(context.Background(), start, "8")...))
			assert.NoError(t, other.Put(context.Background(), entry("7", -1)))
		}
	}
	page, err := store.List(t.Context(), dlq.Query{Limit: 3})
	require.NoError(t, err)
	var got []string
	for i := range page.Entries {
		got = append(got, page.Entries[i].ID)
	}
	require.Equal(t, []string{"9", "6", "5"}, got)
	require.Equal(t, []string{"4", "3", "2", "1", "0", "7"}, walk(t, store, dlq.Query{Limit: 3, Cursor: page.Next}))
}

func TestBoundsBetweenMicroseconds(t *testing.T) {
	store := open(t, connect(t, shared.RedisURL(t)), redisstore.Config{})
	require.NoError(t, store.Put(t.Context(), entry("a", 0)))
	at := entry("a", 0).DeadAt
	require.Empty(t, walk(t, store, dlq.Query{Filter: dlq.Filter{Since: at.Add(1)}}))
	require.Len(t, walk(t, store, dlq.Query{Filter: dlq.Filter{Since: at.Add(-1), Until: at.Add(1)}}), 1)
	require.Empty(t, walk(t, store, dlq.Query{Filter: dlq.Filter{Until: at}}))
}

// Somebody deletes keys by hand: what points to them is skipped, and mended.
func TestIndexIsMended(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	index := func() int64 { return client.ZCard(t.Context(), "{"+prefix+"}:index").Val() }
	require.NoError(t, store.Put(t.Context(), entry("a", 0), entry("b", 1), entry("c", 2)))
	require.NoError(t, client.Del(t.Context(), "{"+prefix+"}:entry:b").Err())
	require.Equal(t, []string{"c", "a"}, walk(t, store, dlq.Query{Limit: 1}))
	require.EqualValues(t, 17, index())
	require.Equal(t, []string{"c", "a"}, walk(t, store, dlq.Query{Filter: dlq.Filter{Source: "sms"}}))
	require.EqualValues(t, 16, index())
	requireKept(t, store, "a", "c")

	require.NoError(t, client.Del(t.Context(), "{"+prefix+"}:entry:a").Err())
	purged, err := store.Purge(t.Context(), start.Add(time.Hour), start)
	require.NoError(t, err)
	require.Equal(t, 1, purged)
	requireKept(t, store)
}

func TestDamagedEntries(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	require.NoError(t, store.Put(t.Context(), entry("good", 0), entry("bad", 1)))
	require.NoError(t, client.HSet(t.Context(), "{"+prefix+"}:entry:bad", "entry", "s3cret").Err())
	got, errs := store.Get(t.Context(), "good", "bad")
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], redisstore.ErrDamaged)
	require.ErrorContains(t, errs[1], "bad")
	require.NotContains(t, errs[1].Error(), "s3cret")
	require.Equal(t, dlq.Entry{}, got[1])
	_, err := store.List(t.Context(), dlq.Query{})
	require.ErrorIs(t, err, redisstore.ErrDamaged)
	_, errs = store.Claim(t.Context(), dlq.Claim{Token: "token", Now: start, Lease: lease}, "good", "bad")
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], redisstore.ErrDamaged)
	require.NoError(t, errors.Join(store.Delete(t.Context(), start.Add(lease), "bad")...))
	requireKept(t, store, "good")
	requireAudit(t, client, prefix, "good")
}

func TestDamagedJobs(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	for _, id := range []string{"good", "bad"} {
		require.NoError(t, store.SaveJob(t.Context(), dlq.Job{ID: id, Status: dlq.JobRunning}))
	}
	require.NoError(t, client.HSet(t.Context(), "{"+prefix+"}:jobs", "bad", `{"id":"good","status":"running"}`).Err())
	_, err := store.Job(t.Context(), "good")
	require.NoError(t, err)
	_, err = store.Job(t.Context(), "bad")
	require.ErrorIs(t, err, redisstore.ErrDamaged)
	_, err = store.Jobs(t.Context())
	require.ErrorIs(t, err, redisstore.ErrDamaged)
	require.ErrorContains(t, err, "bad")
	require.NoError(t, store.DeleteJobs(t.Context(), "bad"))
	jobs, err := store.Jobs(t.Context())
	require.NoError(t, err)
	require.Len(t, jobs, 1)
}

// The keys are something else's: nothing is done, rather than a half.
func TestForeignKeys(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	for _, key := range []string{"index", "reasons", "types", "fingerprints", "entry:id"} {
		prefix := servers.Unique(t)
		store := open(t, client, redisstore.Config{Prefix: prefix})
		require.NoError(t, client.Set(t.Context(), "{"+prefix+"}:"+key, "something else", 0).Err())
		err := store.Put(t.Context(), entry("id", 0))
		require.ErrorIs(t, err, redisstore.ErrUnavailable)
		require.ErrorContains(t, err, "WRONGTYPE")
		keys, err := client.Keys(t.Context(), "{"+prefix+"}:*").Result()
		require.NoError(t, err)
		require.Equal(t, []string{"{" + prefix + "}:" + key}, keys)
	}
}

func TestStoresOfOtherPrefixesAreApart(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t)
	one, two := open(t, client, redisstore.Config{Prefix: prefix}), open(t, client, redisstore.Config{Prefix: prefix + "2"})
	same := open(t, client, redisstore.Config{Prefix: prefix})
	require.NoError(t, one.Put(t.Context(), entry("a", 0)))
	requireKept(t, two)
	requireKept(t, same, "a")
	for _, key := range client.Keys(t.Context(), "*"+prefix+"*").Val() {
		assert.True(t, strings.HasPrefix(key, "{"+prefix+"}:"), key)
	}
}

func requireClaimed(tb testing.TB, store dlq.Store, token string, ids ...string) {
	tb.Helper()
	_, errs := store.Claim(tb.Context(), dlq.Claim{Token: token, Now: start, Lease: lease}, ids...)
	require.NoError(tb, errors.Join(errs...))
}

// tripCounter counts the round trips of a client, and the commands in them.
type tripCounter struct {
	count    int
	commands map[string]int
	onTrip   func()
}

func countTrips(client *redis.Client) *tripCounter {
	c := &tripCounter{commands: make(map[string]int)}
	client.AddHook(c)
	return c
}

func (c *tripCounter) reset() { c.count, c.commands = 0, make(map[string]int) }

func (c *tripCounter) trip(commands ...redis.Cmder) {
	if name := commands[0].Name(); name == "hello" || name == "client" {
		return // a new connection
	}
	c.count++
	for _, command := range commands {
		c.commands[command.Name()]++
	}
	if c.onTrip != nil {
		c.onTrip()
	}
}

func (*tripCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *tripCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error {
		defer c.trip(command)
		return next(ctx, command)
	}
}

func (c *tripCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		defer c.trip(commands...)
		return next(ctx, commands)
	}
}
