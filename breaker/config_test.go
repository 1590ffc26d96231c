package breaker

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfigDefaults(t *testing.T) {
	used := Config{}.withDefaults()
	used.OnChange, used.Logger = nil, nil
	assert.Equal(t, Config{Threshold: 0.5, SampleSize: 10, OpenFor: 30 * time.Second, Probes: 1, ProbeTimeout: time.Minute}, used)
	require.NoError(t, New(Config{}).Err())
}

func TestConfigFaults(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		faults []string
	}{
		"threshold negative":     {Config{Threshold: -0.1}, []string{"Threshold is -0.1, want above 0 and at most 1"}},
		"threshold above 1":      {Config{Threshold: 1.1}, []string{"Threshold is 1.1"}},
		"threshold NaN":          {Config{Threshold: math.NaN()}, []string{"Threshold is NaN"}},
		"threshold Inf":          {Config{Threshold: math.Inf(1)}, []string{"Threshold is +Inf"}},
		"sample size negative":   {Config{SampleSize: -1}, []string{"SampleSize is -1, want 1 to 1000000"}},
		"sample size too large":  {Config{SampleSize: 1_000_001}, []string{"SampleSize is 1000001"}},
		"open for negative":      {Config{OpenFor: -1}, []string{"OpenFor is -1ns, want above 0 and at most 8760h0m0s"}},
		"open for too long":      {Config{OpenFor: math.MaxInt64}, []string{"OpenFor is 2562047h47m16.854775807s"}},
		"probes negative":        {Config{Probes: -1}, []string{"Probes is -1, want 1 to 1000000"}},
		"probes too many":        {Config{Probes: 1_000_001}, []string{"Probes is 1000001"}},
		"probe timeout negative": {Config{ProbeTimeout: -1}, []string{"ProbeTimeout is -1ns, want above 0"}},
		"probe timeout too long": {Config{ProbeTimeout: math.MaxInt64}, []string{"ProbeTimeout is 2562047h"}},
		"all at once": {
			Config{Threshold: 2, SampleSize: -1, OpenFor: -1, Probes: -1, ProbeTimeout: -1},
			[]string{"Threshold", "SampleSize", "OpenFor", "Probes", "ProbeTimeout"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := New(test.config)
			_, err := b.Allow()
			require.ErrorIs(t, err, ErrConfig)
			require.Equal(t, b.Err(), err)
			for _, fault := range test.faults {
				require.ErrorContains(t, err, "breaker: invalid config: "+fault)
			}
		})
	}
	require.NoError(t, New(Config{Threshold: 1, SampleSize: 1, OpenFor: 1, Probes: 1, ProbeTimeout: 1}).Err())
	require.NoError(t, New(Config{Threshold: 1e-9, SampleSize: maxCount, OpenFor: maxWait, Probes: maxCount, ProbeTimeout: maxWait}).Err())
}

func TestUnusableBreakers(t *testing.T) {
	for name, b := range map[string]*Breaker{
		"nil":    nil,
		"zero":   {},
		"faulty": New(Config{Name: "faulty", Probes: -1}),
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, b.Err(), ErrConfig)
			permit, err := b.Allow()
			require.ErrorIs(t, err, ErrConfig)
			require.NotErrorIs(t, err, ErrOpen)
			permit.Done(Failure)
			require.ErrorIs(t, b.Wait(context.Background()), ErrConfig)
			assert.Equal(t, Open, b.State())
			assert.Empty(t, b.Key())
			stop := b.Watch(func(Change) { t.Error("called") })
			stop()
			stop()
			if name == "faulty" {
				assert.Equal(t, "faulty", b.Name())
			} else {
				assert.Empty(t, b.Name())
			}
		})
	}
}

func TestOpenError(t *testing.T) {
	var err error = &OpenError{Name: "pay", RetryIn: time.Second}
	require.ErrorIs(t, err, ErrOpen)
	require.NotErrorIs(t, err, ErrConfig)
	require.EqualError(t, err, `breaker: "pay" is open, retry in 1s`)
	require.EqualError(t, &OpenError{Name: "pay"}, `breaker: "pay" is open, waiting for probes`)
	require.EqualError(t, &OpenError{RetryIn: time.Second}, "breaker: open, retry in 1s")
	require.EqualError(t, &OpenError{}, "breaker: open, waiting for probes")
	typed, ok := errors.AsType[*OpenError](errors.Join(errors.New("x"), err))
	require.True(t, ok)
	assert.Equal(t, time.Second, typed.RetryIn)
}

func TestNames(t *testing.T) {
	for want, name := range map[string]interface{ String() string }{
		"closed": Closed, "half-open": HalfOpen, "open": Open, "State(9)": State(9),
		"abandoned": Abandoned, "success": Success, "failure": Failure, "answered": Answered, "Outcome(9)": Outcome(9),
	} {
		assert.Equal(t, want, name.String())
	}
}
