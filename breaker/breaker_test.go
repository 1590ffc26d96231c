package breaker

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// call is one allowed call with its outcome. It may be used by any goroutine.
func (b *Breaker) call(t assert.TestingT, outcome Outcome) {
	permit, err := b.Allow()
	assert.NoError(t, err) //nolint:testifylint // require ends only the test's own goroutine
	permit.Done(outcome)
}

// trip opens a closed breaker with nothing remembered.
func (b *Breaker) trip(t require.TestingT) {
	for range b.config.SampleSize {
		b.call(t, Failure)
	}
	require.Equal(t, Open, b.State())
}

// refused is how long Allow says to wait.
func (b *Breaker) refused(t require.TestingT) time.Duration {
	_, err := b.Allow()
	require.ErrorIs(t, err, ErrOpen)
	var refusal *OpenError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, b.Name(), refusal.Name)
	return refusal.RetryIn
}

// halfOpen sleeps until an open breaker is half-open.
func (b *Breaker) halfOpen(t require.TestingT) {
	time.Sleep(b.config.OpenFor + 1)
	synctest.Wait()
	require.Equal(t, HalfOpen, b.State())
}

func TestOpensAtTheThreshold(t *testing.T) {
	const s, f, a, x = Success, Failure, Answered, Abandoned
	for name, test := range map[string]struct {
		config   Config
		outcomes []Outcome
		want     State
	}{
		"nothing yet":            {Config{SampleSize: 4}, nil, Closed},
		"not full":               {Config{SampleSize: 4}, []Outcome{f, f, f}, Closed},
		"all failed":             {Config{SampleSize: 4}, []Outcome{f, f, f, f}, Open},
		"half failed":            {Config{SampleSize: 4}, []Outcome{s, f, s, f}, Open},
		"half, filled by a good": {Config{SampleSize: 4}, []Outcome{f, f, s, s}, Open},
		"less than half":         {Config{SampleSize: 4}, []Outcome{s, s, s, f}, Closed},
		"later":                  {Config{SampleSize: 4}, []Outcome{s, s, s, f, f}, Open},
		"old failure forgotten":  {Config{SampleSize: 4}, []Outcome{f, s, s, s, s, f}, Closed},
		"answered isn't counted": {Config{SampleSize: 4}, []Outcome{a, a, a, a, f, f, f}, Closed},
		"answered in between":    {Config{SampleSize: 4}, []Outcome{f, a, f, a, f, a, f}, Open},
		"abandoned isn't":        {Config{SampleSize: 4}, []Outcome{f, x, f, x, f, x}, Closed},
		"unknown isn't":          {Config{SampleSize: 2}, []Outcome{f, 42, -1}, Closed},
		"one":                    {Config{SampleSize: 1}, []Outcome{f}, Open},
		"threshold 1":            {Config{SampleSize: 3, Threshold: 1}, []Outcome{s, f, f}, Closed},
		"threshold 1, all":       {Config{SampleSize: 3, Threshold: 1}, []Outcome{s, f, f, f}, Open},
		"threshold 0.3":          {Config{Threshold: 0.3}, []Outcome{f, f, f, s, s, s, s, s, s, s}, Open},
		"threshold 0.31":         {Config{Threshold: 0.31}, []Outcome{f, f, f, s, s, s, s, s, s, s}, Closed},
		"defaults":               {Config{}, []Outcome{f, f, f, f, f, f, f, f, f}, Closed},
		"defaults, tenth":        {Config{}, []Outcome{f, f, f, f, f, f, f, f, f, f}, Open},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := New(test.config)
				for _, outcome := range test.outcomes {
					b.call(t, outcome)
				}
				assert.Equal(t, test.want, b.State())
			})
		})
	}
}

func TestLongCallsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SampleSize: 3})
		for range 3 {
			permit, err := b.Allow()
			require.NoError(t, err)
			time.Sleep(24 * time.Hour)
			permit.Done(Failure)
		}
		assert.Equal(t, Open, b.State())
	})
}

func TestOpenRefusesUntilItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Name: "pay", OpenFor: time.Minute})
		b.trip(t)
		assert.Equal(t, time.Minute+1, b.refused(t))
		time.Sleep(20 * time.Second)
		assert.Equal(t, 40*time.Second+1, b.refused(t))
		time.Sleep(40 * time.Second)
		assert.Equal(t, time.Duration(1), b.refused(t), "never 0 while open")
		time.Sleep(time.Nanosecond)
		_, err := b.Allow()
		require.NoError(t, err)
	})
}

func TestHalfOpen(t *testing.T) {
	for name, test := range map[string]struct {
		probes   int
		outcomes []Outcome
		want     State
	}{
		"success":             {1, []Outcome{Success}, Closed},
		"answered":            {1, []Outcome{Answered}, Closed},
		"failure":             {1, []Outcome{Failure}, Open},
		"abandoned":           {1, []Outcome{Abandoned}, Open},
		"unknown outcome":     {1, []Outcome{42}, Open},
		"one of three":        {3, []Outcome{Success}, HalfOpen},
		"two of three":        {3, []Outcome{Success, Answered}, HalfOpen},
		"all three":           {3, []Outcome{Success, Answered, Success}, Closed},
		"the third fails":     {3, []Outcome{Success, Success, Failure}, Open},
		"the first fails":     {3, []Outcome{Failure, Success, Success}, Open},
		"the first abandoned": {3, []Outcome{Abandoned, Success, Success}, Open},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := New(Config{Name: "pay", Probes: test.probes})
				b.trip(t)
				b.halfOpen(t)
				var permits []Permit
				for range test.probes {
					permit, err := b.Allow()
					require.NoError(t, err)
					permits = append(permits, permit)
				}
				assert.Zero(t, b.refused(t), "waits for the probes")
				for i, outcome := range test.outcomes {
					permits[i].Done(outcome)
				}
				assert.Equal(t, test.want, b.State())
			})
		})
	}
}

func TestClosesWithNothingRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SampleSize: 4})
		b.trip(t)
		b.halfOpen(t)
		b.call(t, Success)
		require.Equal(t, Closed, b.State())
		for range 3 {
			b.call(t, Failure)
			require.Equal(t, Closed, b.State())
		}
		b.call(t, Failure)
		assert.Equal(t, Open, b.State())
	})
}

func TestProbeThatNeverReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{OpenFor: time.Minute, Probes: 2, ProbeTimeout: 10 * time.Second})
		b.trip(t)
		b.halfOpen(t)
		lost, err := b.Allow()
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		b.call(t, Success)

		time.Sleep(5*time.Second - 1)
		synctest.Wait()
		require.Equal(t, HalfOpen, b.State())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, Open, b.State())
		require.Equal(t, time.Minute+1, b.refused(t))

		b.halfOpen(t)
		lost.Done(Failure)
		require.Equal(t, HalfOpen, b.State(), "its own report is ignored")
		b.call(t, Success)
		b.call(t, Success)
		assert.Equal(t, Closed, b.State())
		assert.Zero(t, b.out)
	})
}

func TestGoexitInACaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{ProbeTimeout: 10 * time.Second})
		exits := func(deferred bool) {
			go func() {
				permit, err := b.Allow()
				assert.NoError(t, err)
				if deferred {
					defer permit.Done(Abandoned)
				}
				runtime.Goexit()
			}()
			synctest.Wait()
		}
		exits(false)
		require.Equal(t, Closed, b.State(), "costs nothing while closed")

		b.trip(t)
		b.halfOpen(t)
		exits(true)
		require.Equal(t, Open, b.State())

		b.halfOpen(t)
		exits(false)
		require.Equal(t, HalfOpen, b.State())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, Open, b.State())

		b.halfOpen(t)
		b.call(t, Success)
		assert.Equal(t, Closed, b.State())
	})
}

func TestWatchdogOfAReportedProbeIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{ProbeTimeout: 10 * time.Second})
		b.trip(t)
		b.halfOpen(t)
		b.call(t, Success)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, Closed, b.State())
	})
}

func TestDoneCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SampleSize: 2, Threshold: 1})
		permit, err := b.Allow()
		require.NoError(t, err)
		again := permit
		permit.Done(Failure)
		again.Done(Failure)
		permit.Done(Success)
		require.Equal(t, Closed, b.State())

		// The next permit uses the same slot; the old one has no power over it.
		next, err := b.Allow()
		require.NoError(t, err)
		require.Same(t, permit.slot, next.slot)
		permit.Done(Success)
		next.Done(Failure)
		require.Equal(t, Open, b.State())

		Permit{}.Done(Failure)
	})
}

func TestLateReportsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SampleSize: 2, Threshold: 1, Probes: 2})
		var old []Permit
		for range 9 {
			permit, err := b.Allow()
			require.NoError(t, err)
			old = append(old, permit)
		}
		late := func(outcomes ...Outcome) {
			for _, outcome := range outcomes {
				old[0].Done(outcome)
				old = old[1:]
			}
		}
		b.trip(t)
		late(Success, Failure)
		require.Equal(t, Open, b.State())
		b.halfOpen(t)
		late(Failure, Success, Success)
		require.Equal(t, HalfOpen, b.State(), "not taken for probes")
		b.call(t, Success)
		probe, err := b.Allow()
		require.NoError(t, err)
		probe.Done(Success)
		require.Equal(t, Closed, b.State())
		late(Failure, Failure, Failure)
		require.Equal(t, Closed, b.State(), "not counted in the new window")
		b.call(t, Failure)
		late(Success)
		b.call(t, Failure)
		assert.Equal(t, Open, b.State(), "nor is a success")
		assert.Zero(t, b.out)
	})
}

func TestContention(t *testing.T) {
	var changes record[Change]
	b := New(Config{SampleSize: 20, OpenFor: time.Microsecond, Probes: 3, OnChange: changes.add})
	var allowed atomic.Int64
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			for n := range 200 {
				permit, err := b.Allow()
				if err != nil {
					if !errors.Is(err, ErrOpen) || b.Wait(t.Context()) != nil {
						t.Errorf("refused with %v", err)
					}
					continue
				}
				allowed.Add(1)
				permit.Done(Outcome((i + n) % 4))
				permit.Done(Failure)
			}
		})
	}
	group.Wait()
	assert.Positive(t, allowed.Load())
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return !b.observers.notifying && len(b.observers.queue) == 0 && b.state != Open
	}, time.Minute, time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	assert.Zero(t, b.out)
	state := Closed
	for _, change := range changes.all() {
		require.Equal(t, state, change.From, "no change is told out of order")
		state = change.To
	}
	assert.Equal(t, b.state, state)
}

func BenchmarkAllowDone(b *testing.B) {
	breaker := New(Config{})
	b.ReportAllocs()
	for b.Loop() {
		permit, _ := breaker.Allow()
		permit.Done(Success)
	}
}

func BenchmarkAllowDoneContended(b *testing.B) {
	breaker := New(Config{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			permit, _ := breaker.Allow()
			permit.Done(Success)
		}
	})
}

func BenchmarkRefused(b *testing.B) {
	breaker := New(Config{OpenFor: time.Hour})
	breaker.trip(b)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = breaker.Allow()
	}
}
