package redisstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

// shared is the Redis of the tests that do it no harm.
var shared servers.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Main(m)) }

const (
	// patience is for what happens soon, on a slow machine.
	patience = time.Minute
	lease    = time.Minute
)

var start = time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC)

// connect returns a client of url that heeds contexts, closed at the test's end.
func connect(tb testing.TB, url string) *redis.Client {
	options, err := redis.ParseURL(url)
	require.NoError(tb, err)
	options.ContextTimeoutEnabled = true
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = patience, patience, patience, patience
	options.DialerRetries = 1
	options.MaxRetries = 1
	client := redis.NewClient(options)
	tb.Cleanup(func() { assert.NoError(tb, client.Close()) })
	return client
}

// open returns a store on client with keys of its own.
func open(tb testing.TB, client redis.UniversalClient, config redisstore.Config) *redisstore.Store {
	if config.Prefix == "" {
		config.Prefix = servers.Unique(tb)
	}
	if config.Timeout == 0 {
		config.Timeout = patience
	}
	store := redisstore.New(client, config)
	require.NoError(tb, store.Err())
	return store
}

// entry is one of many, a second after the one before.
func entry(id string, second int) dlq.Entry {
	e := dlq.Entry{ID: id, Reason: "exhausted", Error: "status 503", Source: "sms", DeadAt: start.Add(time.Duration(second) * time.Second)}
	e.FirstFailedAt = e.DeadAt
	e.Fingerprint = dlq.Fingerprint(e.Error)
	e.Envelope.ID = "message of " + id
	e.Envelope.Recipient = "recipient of " + id
	e.Envelope.Type = "order"
	e.Envelope.Body = []byte("body of " + id)
	return e
}

func requireKept(tb testing.TB, store dlq.Store, ids ...string) {
	tb.Helper()
	page, err := store.List(context.Background(), dlq.Query{Order: dlq.OldestFirst, Limit: dlq.MaxLimit})
	require.NoError(tb, err)
	got := make([]string, 0, len(page.Entries))
	for i := range page.Entries {
		got = append(got, page.Entries[i].ID)
	}
	require.ElementsMatch(tb, ids, got)
	count, err := store.Count(context.Background(), dlq.Filter{})
	require.NoError(tb, err)
	require.Equal(tb, len(ids), count)
}
