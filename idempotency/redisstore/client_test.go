package redisstore_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency/redisstore"
)

func TestOptionsHaveTimeoutsThatSuit(t *testing.T) {
	options, err := redisstore.Options("rediss://user:p%40ss@example.com:6380/3")
	require.NoError(t, err)
	assert.Equal(t, "example.com:6380", options.Addr)
	assert.Equal(t, "p@ss", options.Password)
	assert.Equal(t, 3, options.DB)
	assert.NotNil(t, options.TLSConfig)
	assert.Equal(t, time.Second, options.DialTimeout)
	assert.Equal(t, 500*time.Millisecond, options.ReadTimeout)
	assert.Equal(t, 500*time.Millisecond, options.WriteTimeout)
	assert.Equal(t, 500*time.Millisecond, options.PoolTimeout)
	assert.Equal(t, 1, options.MaxRetries)
	assert.Equal(t, 1, options.DialerRetries)
	assert.True(t, options.ContextTimeoutEnabled)

	options, err = redisstore.Options("redis://localhost?read_timeout=2s&max_retries=-1")
	require.NoError(t, err)
	assert.Equal(t, 2*time.Second, options.ReadTimeout)
	assert.Equal(t, -1, options.MaxRetries)
	assert.Equal(t, "localhost:6379", options.Addr)
}

func TestURLErrorsShowNoPassword(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{"redis://user:s3cret word@host:6379", "can't be parsed"},
		{"redis://user:s3cret%zz@host:6379", "can't be parsed"},
		{"redis://:s3cret/s3cret@host:6379/0", "can't be parsed"},
		{"redis://user:s3cret@host:port", "can't be parsed"},
		{"redis://user:12/s3cret@host:6379/0", "bad path"},
		{"redis://user:12/s3cret", "names no database"},
		{"redis://user:12?s3cret@host:6379/0", "unknown query parameter"},
		{"redis://host?read_timeout=s3cret", "bad value"},
		{"redis://host?db=s3cret", "names no database"},
		{"s3cret:s3cret@host", "unknown scheme"},
		{"unix://user:s3cret@", "no path to a socket"},
		{"s3cret", "unknown scheme"},
		{"", "unknown scheme"},
	} {
		client, err := redisstore.NewClient(test.url)
		require.ErrorIs(t, err, redisstore.ErrConfig, test.url)
		require.ErrorContains(t, err, test.want, test.url)
		require.NotContains(t, err.Error(), "s3cret", test.url)
		require.Nil(t, client)
	}
}

// What go-redis has to say of a server that is not there goes to the host's logger.
func TestClientLog(t *testing.T) {
	redis.SetLogger(redisstore.ClientLog{})
	var log bytes.Buffer
	redis.SetLogger(redisstore.ClientLog{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	client, err := redisstore.NewClient("redis://user:s3cret@127.0.0.1:1")
	require.NoError(t, err)
	require.Error(t, client.Ping(t.Context()).Err())
	redis.SetLogger(redisstore.ClientLog{})
	require.NoError(t, client.Close())
	var event struct{ Level, Msg, Text string }
	require.NoError(t, json.NewDecoder(&log).Decode(&event))
	assert.Equal(t, "WARN redis client", event.Level+" "+event.Msg)
	assert.Contains(t, event.Text, "connection refused")
	assert.NotContains(t, log.String(), "s3cret")
}

func FuzzOptions(f *testing.F) {
	f.Add("word", "@host:6379/0")
	f.Add("wo/rd", "@host:6379/0?a=b")
	f.Add("wo?rd", "")
	f.Fuzz(func(t *testing.T, password, rest string) {
		// A word that our own texts do not hold.
		password = "s3cret" + password + "s3cret"
		_, err := redisstore.Options("redis://user:" + password + rest)
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Fatalf("%q shows the password", err)
		}
	})
}
