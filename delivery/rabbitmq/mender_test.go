package rabbitmq

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestMenderWaitsNoLongerThanItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m mender
		life, end := context.WithCancel(t.Context())
		require.NoError(t, m.await(t.Context(), life, 0))
		go func() {
			<-time.After(time.Second)
			m.rounds.Add(1)
			m.renewed.notify()
		}()
		require.NoError(t, m.await(t.Context(), life, 1))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.await(short, life, 2), context.DeadlineExceeded)
		time.AfterFunc(time.Second, end)
		require.ErrorIs(t, m.await(t.Context(), life, 2), delivery.ErrClosed)

		assert.False(t, m.hopeless())
		m.failed()
		assert.True(t, m.hopeless())
		<-time.After(futileFor)
		assert.False(t, m.hopeless())
	})
}

// A control connection that is refused for good is logged once, however often the
// topology is to be renewed meanwhile.
func TestRefusedControlConnectionIsLoggedOnce(t *testing.T) {
	t.Parallel()
	written := make(chan struct{}, 10)
	c := light(t, shared.AMQP(t))
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{text: "topology not declared", seen: written}, nil))
	transport := open(t, c)
	awaitConns(t, transport)
	refusing, err := NewConnections(ConnectionsConfig{URL: c.URL + "nowhere"})
	require.NoError(t, err)
	control := &transport.controlConn
	control.looking <- struct{}{}
	control.conn.leave()
	control.conn, control.shared = nil, refusing.control
	<-control.looking
	for range 5 {
		transport.renew(t.Context(), true)
	}
	assert.Len(t, written, 1)
}
