package rabbitmq

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestReconnectDelayGrowsToItsLimit(t *testing.T) {
	d := newReconnectDelay(time.Second)
	first := d.next(false)
	assert.GreaterOrEqual(t, first, shortestReconnectDelay/2)
	assert.LessOrEqual(t, first, shortestReconnectDelay)
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

func TestReconnectDelayIsNeverAboveAShortLimit(t *testing.T) {
	d := newReconnectDelay(10 * time.Millisecond)
	for range 10 {
		assert.LessOrEqual(t, d.next(false), 10*time.Millisecond)
	}
	assert.Equal(t, 10*time.Millisecond, d.next(true))
}
