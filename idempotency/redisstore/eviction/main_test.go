package eviction_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what happens soon, on a slow machine.
const patience = time.Minute

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
