package breaker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{OpenFor: time.Minute, ProbeTimeout: 10 * time.Second})
		waited := make(chan time.Duration, 10)
		wait := func() {
			start := time.Now()
			go func() {
				assert.NoError(t, b.Wait(context.Background()))
				waited <- time.Since(start)
			}()
			synctest.Wait()
		}

		wait()
		require.Zero(t, <-waited, "closed")

		b.trip(t)
		wait()
		wait()
		time.Sleep(2 * time.Minute)
		require.Equal(t, time.Minute+1, <-waited, "woken by the open timer")
		require.Equal(t, time.Minute+1, <-waited)

		wait()
		require.Zero(t, <-waited, "half-open with a probe left")

		probe, err := b.Allow()
		require.NoError(t, err)
		wait()
		time.Sleep(5 * time.Second)
		probe.Done(Success)
		require.Equal(t, 5*time.Second, <-waited, "woken when the probe closes it")

		b.trip(t)
		b.halfOpen(t)
		probe, err = b.Allow()
		require.NoError(t, err)
		wait()
		time.Sleep(5 * time.Second)
		probe.Done(Failure)
		time.Sleep(time.Hour)
		require.Equal(t, 5*time.Second+time.Minute+1, <-waited, "goes on when the probe opens it")

		_, err = b.Allow()
		require.NoError(t, err)
		wait()
		time.Sleep(time.Hour)
		require.Equal(t, 10*time.Second+time.Minute+1, <-waited, "a probe that never reports holds it up for its timeout")
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{OpenFor: time.Hour})
		over, cancel := context.WithCancel(context.Background())
		cancel()
		require.Equal(t, context.Canceled, b.Wait(over), "even when closed")

		b.trip(t)
		require.Equal(t, context.Canceled, b.Wait(over), "when it has ended already")
		start := time.Now()
		short, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := b.Wait(short)
		require.Equal(t, time.Minute, time.Since(start))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var refusal *OpenError
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, 59*time.Minute, refusal.RetryIn.Round(time.Second))

		caused, cancelCause := context.WithCancelCause(context.Background())
		cancelCause(errors.New("the cause"))
		require.Equal(t, context.Canceled, b.Wait(caused))

		var none context.Context
		require.NoError(t, b.Wait(none), "nil never ends")
		assert.Equal(t, time.Hour+1, time.Since(start))
	})
}
