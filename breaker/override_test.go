package breaker

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every state meets every event. The times are those left afterwards, 0 for
// none, with the nanosecond that every end is late by.
func TestStatesAndEvents(t *testing.T) {
	const openFor, forceFor, told = time.Minute, time.Hour, 20 * time.Second
	type want struct {
		state  State
		left   time.Duration
		forced bool
		told   []Cause // of the changes
	}
	states := map[string]func(t *testing.T, b *Breaker){
		"closed":        func(*testing.T, *Breaker) {},
		"open":          func(t *testing.T, b *Breaker) { b.trip(t) },
		"half-open":     func(t *testing.T, b *Breaker) { b.trip(t); b.halfOpen(t) },
		"forced open":   func(_ *testing.T, b *Breaker) { b.ForceOpen(0) },
		"forced closed": func(_ *testing.T, b *Breaker) { b.ForceClosed(0) },
	}
	events := map[string]func(b *Breaker){
		"trip":              func(b *Breaker) { b.Trip(told) },
		"trip for nothing":  func(b *Breaker) { b.Trip(-time.Hour) },
		"reset":             func(b *Breaker) { b.Reset() },
		"force open":        func(b *Breaker) { b.ForceOpen(0) },
		"force open for":    func(b *Breaker) { b.ForceOpen(forceFor) },
		"force closed":      func(b *Breaker) { b.ForceClosed(0) },
		"force closed for":  func(b *Breaker) { b.ForceClosed(forceFor) },
		"force for nothing": func(b *Breaker) { b.ForceOpen(-1); b.ForceClosed(-time.Hour) },
		"release":           func(b *Breaker) { b.Release() },
	}
	byTold, byForce := []Cause{CauseTold}, []Cause{CauseForced}
	table := map[string]map[string]want{
		"closed": {
			"trip":              {Open, told + 1, false, byTold},
			"trip for nothing":  {Open, 2, false, byTold},
			"reset":             {Closed, 0, false, nil},
			"force open":        {Open, 0, true, byForce},
			"force open for":    {Open, forceFor + 1, true, byForce},
			"force closed":      {Closed, 0, true, nil},
			"force closed for":  {Closed, forceFor + 1, true, nil},
			"force for nothing": {Closed, 0, false, nil},
			"release":           {Closed, 0, false, nil},
		},
		"open": {
			"trip":              {Open, told + 1, false, nil},
			"trip for nothing":  {Open, 2, false, nil},
			"reset":             {Closed, 0, false, byTold},
			"force open":        {Open, 0, true, nil},
			"force open for":    {Open, forceFor + 1, true, nil},
			"force closed":      {Closed, 0, true, byForce},
			"force closed for":  {Closed, forceFor + 1, true, byForce},
			"force for nothing": {Open, openFor + 1, false, nil},
			"release":           {Open, openFor + 1, false, nil},
		},
		"half-open": {
			"trip":              {Open, told + 1, false, byTold},
			"trip for nothing":  {Open, 2, false, byTold},
			"reset":             {Closed, 0, false, byTold},
			"force open":        {Open, 0, true, byForce},
			"force open for":    {Open, forceFor + 1, true, byForce},
			"force closed":      {Closed, 0, true, byForce},
			"force closed for":  {Closed, forceFor + 1, true, byForce},
			"force for nothing": {HalfOpen, 0, false, nil},
			"release":           {HalfOpen, 0, false, nil},
		},
		"forced open": {
			"trip":              {Open, 0, true, nil},
			"trip for nothing":  {Open, 0, true, nil},
			"reset":             {Open, 0, true, nil},
			"force open":        {Open, 0, true, nil},
			"force open for":    {Open, forceFor + 1, true, nil},
			"force closed":      {Closed, 0, true, byForce},
			"force closed for":  {Closed, forceFor + 1, true, byForce},
			"force for nothing": {Open, 0, true, nil},
			"release":           {Open, 2, true, nil}, // half-open in 2 ns
		},
		"forced closed": {
			"trip":              {Closed, 0, true, nil},
			"trip for nothing":  {Closed, 0, true, nil},
			"reset":             {Closed, 0, true, nil},
			"force open":        {Open, 0, true, byForce},
			"force open for":    {Open, forceFor + 1, true, byForce},
			"force closed":      {Closed, 0, true, nil},
			"force closed for":  {Closed, forceFor + 1, true, nil},
			"force for nothing": {Closed, 0, true, nil},
			"release":           {Closed, 0, false, nil},
		},
	}
	for state, enter := range states {
		for event, happen := range events {
			t.Run(state+", "+event, func(t *testing.T) {
				want, ok := table[state][event]
				require.True(t, ok)
				synctest.Test(t, func(t *testing.T) {
					b := New(Config{OpenFor: openFor})
					enter(t, b)
					var causes []Cause
					stop := b.Watch(func(c Change) {
						causes = append(causes, c.Cause)
						assert.Equal(t, want.state, c.To)
					})
					happen(b)
					stop()
					status := b.Status()
					var left time.Duration
					if !status.Until.IsZero() {
						left = time.Until(status.Until)
					}
					require.Equal(t, want.state, status.State)
					assert.Equal(t, want.state, b.State())
					assert.Equal(t, want.left, left)
					assert.Equal(t, want.forced, status.Forced)
					assert.Equal(t, want.told, causes)
					permit, err := b.Allow()
					if want.state == Open {
						assert.Equal(t, &OpenError{RetryIn: want.left, Forced: want.forced}, err)
					} else {
						require.NoError(t, err)
					}
					permit.Done(Success)
					b.ForceClosed(0) // no timer is left
				})
			})
		}
	}
}

func TestForceOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Name: "pay", SampleSize: 1})
		old, err := b.Allow()
		require.NoError(t, err)
		b.ForceOpen(0)
		time.Sleep(1000 * time.Hour)
		old.Done(Failure)
		_, err = b.Allow()
		require.EqualError(t, err, `breaker: "pay" is open by force until released`)
		waited := make(chan error)
		go func() { waited <- b.Wait(context.Background()) }()
		synctest.Wait()
		b.Release()
		require.NoError(t, <-waited)
		require.Equal(t, HalfOpen, b.State(), "not at full speed at once")
		b.call(t, Success)
		require.Equal(t, Closed, b.State())

		b.ForceOpen(time.Minute)
		_, err = b.Allow()
		require.EqualError(t, err, `breaker: "pay" is open by force, retry in 1m0.000000001s`)
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		require.Equal(t, Status{State: HalfOpen, Wanted: true}, b.Status())
		b.call(t, Failure)
		assert.Equal(t, b.config.OpenFor+1, b.refused(t), "its own time again")

		b.ForceOpen(math.MaxInt64)
		assert.Equal(t, time.Duration(math.MaxInt64), b.refused(t))
		b.ForceClosed(0)
	})
}

func TestForceClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SampleSize: 2})
		before, err := b.Allow()
		require.NoError(t, err)
		b.call(t, Failure)
		b.ForceClosed(time.Minute)
		for range 10 {
			b.call(t, Failure)
		}
		under, err := b.Allow()
		require.NoError(t, err)
		require.Equal(t, Closed, b.State())
		require.False(t, b.idle(), "a force is not forgotten by a Set")
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		require.Equal(t, Status{}, b.Status())
		before.Done(Failure)
		under.Done(Failure)
		b.call(t, Failure)
		require.Equal(t, Closed, b.State(), "nothing of before counts")
		b.call(t, Failure)
		require.Equal(t, Open, b.State())
		assert.Zero(t, b.out)
	})
}

func TestTripAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SampleSize: 2, Probes: 2, OpenFor: time.Minute})
		b.call(t, Failure)
		b.Reset()
		b.call(t, Failure)
		require.Equal(t, Open, b.State(), "closed already, so nothing was forgotten")

		waited := make(chan time.Duration, 1)
		start := time.Now()
		go func() {
			assert.NoError(t, b.Wait(context.Background()))
			waited <- time.Since(start)
		}()
		synctest.Wait()
		b.Trip(time.Hour)
		require.Equal(t, time.Hour+1, <-waited, "later than its own time")

		probe, err := b.Allow()
		require.NoError(t, err)
		require.Equal(t, 1, b.Status().Probing)
		b.call(t, Success)
		require.Equal(t, 1, b.Status().Probing)
		b.Trip(time.Second) // with all probes taken
		probe.Done(Success)
		require.Equal(t, time.Second+1, b.refused(t))
		time.Sleep(time.Second + 1)
		synctest.Wait()
		b.call(t, Success)
		b.Reset()
		require.Equal(t, Closed, b.State())
		require.False(t, b.Status().Wanted)
		b.call(t, Failure)
		assert.Equal(t, Closed, b.State())
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, Closed, b.State(), "no timer of before has a say")
	})
}

func TestHoldProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Probes: 2})
		b.HoldProbes(true)
		b.trip(t) // while closed it is all the same
		b.halfOpen(t)
		require.False(t, b.Status().Wanted)
		require.Zero(t, b.refused(t))
		require.True(t, b.Status().Wanted)

		waited := make(chan error)
		go func() { waited <- b.Wait(context.Background()) }()
		synctest.Wait()
		b.HoldProbes(true)
		b.HoldProbes(false)
		require.NoError(t, <-waited)
		b.HoldProbes(false)
		require.False(t, b.Status().Wanted)
		probe, err := b.Allow()
		require.NoError(t, err)
		b.HoldProbes(true)
		require.Zero(t, b.refused(t), "the other probe is held")
		probe.Done(Success)
		require.Equal(t, HalfOpen, b.State())
		b.HoldProbes(false)
		b.call(t, Success)
		assert.Equal(t, Closed, b.State(), "what was out counts")
	})
}

func TestOverridesOfUnusableBreakers(t *testing.T) {
	for _, b := range []*Breaker{nil, {}, New(Config{Probes: -1})} {
		assert.NotPanics(t, func() {
			b.ForceOpen(0)
			b.ForceClosed(0)
			b.Release()
			b.Trip(time.Second)
			b.Reset()
			b.HoldProbes(true)
		})
		assert.Equal(t, Status{State: Open}, b.Status())
	}
}

func TestCauseNames(t *testing.T) {
	assert.Equal(t, "own", CauseOwn.String())
	assert.Equal(t, "told", CauseTold.String())
	assert.Equal(t, "forced", CauseForced.String())
	assert.Equal(t, "Cause(7)", Cause(7).String())
}
