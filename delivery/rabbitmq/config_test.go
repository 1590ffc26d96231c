package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestConfigDefaults(t *testing.T) {
	c := Config{URL: "amqp://localhost", Name: "orders"}.withDefaults()
	require.NoError(t, c.validate())
	assert.Equal(t, 1, c.Shards)
	assert.Equal(t, 2, c.Lanes)
	assert.Equal(t, 512, c.Window)
	assert.Equal(t, 16<<20, c.MaxBodyBytes)
	assert.Equal(t, 10*time.Second, c.DialTimeout)
	assert.Equal(t, 10*time.Second, c.WriteTimeout)
	assert.Equal(t, 10*time.Second, c.Heartbeat)
	assert.Equal(t, 30*time.Second, c.MaxReconnectDelay)
	assert.NotNil(t, c.Topology)
	assert.NotNil(t, c.Logger)
}

func TestConfigFaults(t *testing.T) {
	_, err := Open(context.Background(), Config{})
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "URL is empty")
	require.ErrorContains(t, err, "Name is empty")
	for want, change := range map[string]func(*Config){
		"Name has 201 bytes, want at most 200": func(c *Config) { c.Name = strings.Repeat("n", 201) },
		"amq.":                                 func(c *Config) { c.Name = "amq.orders" },
		"want UTF-8":                           func(c *Config) { c.Name = "\xff" },
		"Shards is 65, want 1 to 64":           func(c *Config) { c.Shards = 65 },
		"Shards is -1":                         func(c *Config) { c.Shards = -1 },
		"Lanes is 17, want 1 to 16":            func(c *Config) { c.Lanes = 17 },
		"Lanes is -1":                          func(c *Config) { c.Lanes = -1 },
		"Window is -1":                         func(c *Config) { c.Window = -1 },
		"MaxBodyBytes is":                      func(c *Config) { c.MaxBodyBytes = 129 << 20 },
		"DialTimeout is":                       func(c *Config) { c.DialTimeout = -1 },
		"WriteTimeout is":                      func(c *Config) { c.WriteTimeout = -1 },
		"MaxReconnectDelay is":                 func(c *Config) { c.MaxReconnectDelay = -1 },
		"Heartbeat is 1ms, want at least 1s":   func(c *Config) { c.Heartbeat = time.Millisecond },
		"TLS is set":                           func(c *Config) { c.TLS = &tls.Config{} },
		"auth_mechanism":                       func(c *Config) { c.URL += "?auth_mechanism=magic" },
		"can't be parsed":                      func(c *Config) { c.URL = "http://localhost" },
	} {
		t.Run(want, func(t *testing.T) {
			c := Config{URL: "amqp://guest:secret@localhost/", Name: "orders"}
			change(&c)
			_, err := Open(context.Background(), c)
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, want)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestURLFaultsKeepThePassword(t *testing.T) {
	for _, url := range []string{
		"amqp://guest:sec/ret@localhost/",
		"amqp://guest:12/ret@localhost/",
		"amqp://guest:12?ret@localhost/",
		"amqp://guest:12#ret@localhost/",
		"amqp://guest:sec%zzret@localhost/",
		"amqp://guest:sec ret@localhost/",
		"amqp://guest:sec\x7fret@localhost/",
		"amqp://guest:secret@localhost:port/",
		"amqp://guest:secret@localhost/?heartbeat=secret",
		"secret",
		"://guest:secret@localhost",
	} {
		t.Run(url, func(t *testing.T) {
			_, err := Open(context.Background(), Config{URL: url, Name: "orders"})
			require.ErrorIs(t, err, ErrConfig)
			for _, part := range []string{"sec", "ret@", "12"} {
				assert.NotContains(t, err.Error(), part)
			}
		})
	}
}

func TestOpenGivesUpInTime(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := closed.Addr().String()
	require.NoError(t, closed.Close())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	defer silent.Close() //nolint:errcheck // the test is over
	for name, address := range map[string]string{"closed port": refused, "silent server": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			_, err := Open(ctx, Config{URL: "amqp://guest:secret@" + address + "/", Name: "orders", Logger: testLogger(t)})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			var fault *ConnectError
			require.ErrorAs(t, err, &fault)
			assert.False(t, fault.Permanent)
			assert.Equal(t, address, fault.Address)
			require.ErrorContains(t, err, address)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
	t.Run("TLS to a server without", func(t *testing.T) {
		plain, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer plain.Close() //nolint:errcheck // the test is over
		go func() {
			for {
				conn, err := plain.Accept()
				if err != nil {
					return
				}
				conn.Write([]byte("AMQP\x00\x00\x09\x01")) //nolint:errcheck // the client complains
				defer conn.Close()                         //nolint:errcheck // the test is over
			}
		}()
		_, err = Open(context.Background(), Config{
			URL: "amqps://guest:secret@" + plain.Addr().String() + "/", Name: "orders", TLS: &tls.Config{MinVersion: tls.VersionTLS12},
		})
		var fault *ConnectError
		require.ErrorAs(t, err, &fault)
		assert.True(t, fault.Permanent)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := Open(ctx, Config{URL: "amqp://" + refused, Name: "orders"})
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestPermanent(t *testing.T) {
	server := func(code int, reason string) error { return &amqp.Error{Code: code, Reason: reason, Server: true} }
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"nil":                {nil, false},
		"other":              {errors.New("other"), false},
		"403":                {server(403, "ACCESS_REFUSED"), true},
		"403 of the client":  {amqp.ErrCredentials, false},
		"no mechanism":       {amqp.ErrSASL, true},
		"no more channels":   {amqp.ErrChannelMax, true},
		"404":                {server(404, "NOT_FOUND"), true},
		"406":                {newTopologyError("queue", "q", server(406, "PRECONDITION_FAILED")), true},
		"320":                {server(320, "CONNECTION_FORCED"), false},
		"541":                {server(541, "INTERNAL_ERROR"), false},
		"530 missing vhost":  {server(530, "NOT_ALLOWED - vhost x not found"), true},
		"530 refused vhost":  {server(530, "NOT_ALLOWED - access to vhost 'x' refused for user 'y'"), true},
		"530 vhost down":     {server(530, "NOT_ALLOWED - vhost 'x' is down"), false},
		"refused connection": {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, false},
		"TLS alert":          {&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, true},
		"certificate":        {&tls.CertificateVerificationError{}, true},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, permanent(test.err)) })
	}
}

func TestErrorsTellTheirCause(t *testing.T) {
	cause := errors.New("cause")
	err := error(&ConnectError{Address: "host:1", Cause: cause})
	assert.Equal(t, "rabbitmq: no connection to host:1: cause", err.Error())
	require.ErrorIs(t, err, cause)
	err = &ConnectError{Address: "host:1", Cause: cause, Context: context.Canceled}
	assert.Equal(t, "rabbitmq: no connection to host:1: context canceled, the last cause: cause", err.Error())
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, &TopologyError{Cause: cause}, cause)
}

func TestZeroValuesDoNotPanic(t *testing.T) {
	for name, transport := range map[string]*Transport{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			batch := []delivery.Envelope{valid()}
			require.Nil(t, transport.Send(ctx, nil))
			require.ErrorIs(t, transport.Send(ctx, batch)[0], delivery.ErrClosed)
			require.ErrorIs(t, transport.SendAfter(ctx, time.Hour, batch)[0], delivery.ErrClosed)
			_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
			require.ErrorIs(t, err, delivery.ErrClosed)
			require.ErrorIs(t, transport.Ping(ctx), delivery.ErrClosed)
			_, err = transport.Depth(ctx)
			require.ErrorIs(t, err, delivery.ErrClosed)
			require.ErrorIs(t, transport.DeadLetter(ctx, delivery.DeadLetter{}), delivery.ErrClosed)
			assert.Empty(t, transport.Name())
			assert.Empty(t, transport.Topology().Queues)
			assert.NoError(t, transport.Close())
		})
	}
	for name, subscription := range map[string]*Subscription{"nil": nil, "zero": {}} {
		t.Run(name+" subscription", func(t *testing.T) {
			_, err := subscription.Receive(context.Background())
			require.ErrorIs(t, err, delivery.ErrClosed)
			require.ErrorIs(t, subscription.Pause(context.Background()), delivery.ErrClosed)
			require.ErrorIs(t, subscription.Resume(context.Background()), delivery.ErrClosed)
			assert.NoError(t, subscription.Close())
		})
	}
}
