package rabbitmq

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestReconnectDelayGrowsToItsLimit(t *testing.T) {
	d := newReconnectDelay(time.Second)
	for range 100 {
		assert.LessOrEqual(t, d.next(false), time.Second)
	}
	assert.GreaterOrEqual(t, d.next(false), 300*time.Millisecond)
	assert.Equal(t, time.Second, d.next(true))
	d.endedAfter(time.Now())
	assert.GreaterOrEqual(t, d.next(false), 300*time.Millisecond, "what broke at once does not count")
	d.endedAfter(time.Now().Add(-time.Minute))
	assert.LessOrEqual(t, d.next(false), 150*time.Millisecond)
}
