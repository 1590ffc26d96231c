package rabbitmq

import (
	"context"
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
