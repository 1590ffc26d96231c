package rabbitmq

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	url := shared.AMQP(t)
	for name, test := range map[string]struct{ url, want string }{
		"wrong password": {strings.Replace(url, "guest:guest@", "guest:secret@", 1), "ACCESS_REFUSED"},
		"no such vhost":  {url + "nowhere", "not found"},
		"AMQPLAIN":       {strings.Replace(url, "guest:guest@", "guest:secret@", 1) + "?auth_mechanism=AMQPLAIN", "ACCESS_REFUSED"},
		"EXTERNAL":       {url + "?auth_mechanism=EXTERNAL", "mechanism"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(context.Background(), Config{URL: test.url, Name: "orders", Logger: testLogger(t)})
			var fault *ConnectError
			require.ErrorAs(t, err, &fault)
			assert.True(t, fault.Permanent)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "127.0.0.1:")
			assert.NotContains(t, err.Error(), "secret")
			require.NoError(t, fault.Context, "it was not tried until there was no more time")
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	authority := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	defer authority.Close()
	network := newSecureNetwork(t, shared.AMQP(t), &tls.Config{Certificates: authority.TLS.Certificates, MinVersion: tls.VersionTLS12})
	c := config(t, network.url)
	_, err := Open(context.Background(), c)
	var fault *ConnectError
	require.ErrorAs(t, err, &fault)
	assert.True(t, fault.Permanent, "nobody vouches for the certificate")
	c.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	c.TLS.RootCAs.AddCert(authority.Certificate())
	transport := open(t, c)
	assert.Empty(t, c.TLS.ServerName, "the host's value is left alone")
	traffic := startTraffic(t, transport)
	traffic.awaitMore(200)
	network.cut()
	traffic.awaitMore(200)
	traffic.finish(1)
}

// A connection that can be made wakes all that wait for a reconnect, however long
// their delay has become: before a try, during it, or after it.
func TestConnectionWakesItsSiblings(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, shared.AMQP(t))
	network.down.Store(true)
	failed := make(chan struct{}, 10)
	connections, err := NewConnections(ConnectionsConfig{
		URL: network.url, PublishConnections: 3,
		Logger: slog.New(slog.NewTextHandler(signalWriter{text: "broker connect failed", seen: failed}, nil)),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	made := make(chan *connection)
	for i := range 3 {
		go func() {
			delay := newReconnectDelay(time.Hour)
			delay.failures = 20
			conn, err := connections.publish[i].join(ctx, delay, true)
			assert.NoError(t, err)
			made <- conn
		}()
	}
	for range 3 {
		<-failed
	}
	network.down.Store(false)
	conn, fault := connections.control.joinOnce(ctx)
	require.Nil(t, fault)
	conn.leave()
	for range 3 {
		if conn := <-made; conn != nil {
			conn.leave()
		}
	}
	assert.Nil(t, connections.dialer.fault.Load())
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
