package retry

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestExponentialDelay(t *testing.T) {
	const longest = time.Duration(math.MaxInt64)
	for name, test := range map[string]struct {
		policy Exponential
		n      int
		want   time.Duration
	}{
		"defaults, first":       {Exponential{}, 0, 5 * time.Second},
		"defaults, second":      {Exponential{}, 1, 10 * time.Second},
		"defaults, sixth":       {Exponential{}, 5, 160 * time.Second},
		"defaults, capped":      {Exponential{}, 6, 5 * time.Minute},
		"own base":              {Exponential{Base: time.Second}, 3, 8 * time.Second},
		"odd base":              {Exponential{Base: 3, Max: 100}, 5, 96},
		"exactly at the cap":    {Exponential{Base: 1, Max: 1024}, 10, 1024},
		"just under the cap":    {Exponential{Base: 1, Max: 1025}, 10, 1024},
		"62 doublings":          {Exponential{Base: 1, Max: longest}, 62, 1 << 62},
		"63 doublings":          {Exponential{Base: 1, Max: longest}, 63, longest},
		"1024 doublings is Inf": {Exponential{}, 1024, 5 * time.Minute},
		"largest n":             {Exponential{Base: 1, Max: longest}, math.MaxInt, longest},
		"largest base":          {Exponential{Base: longest, Max: longest}, 0, longest},
		"negative n":            {Exponential{}, -1, 5 * time.Second},
		"smallest n":            {Exponential{}, math.MinInt, 5 * time.Second},
		"negative base":         {Exponential{Base: -time.Second}, 0, 5 * time.Second},
		"negative max":          {Exponential{Max: -1}, 100, 5 * time.Minute},
		"base above max":        {Exponential{Base: time.Hour, Max: time.Minute}, 0, time.Minute},
		"unknown jitter":        {Exponential{Jitter: 42}, 0, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, test.policy.Delay(test.n))
		})
	}
}

func TestExponentialDelayIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := Exponential{
			Base:       time.Duration(rapid.Int64().Draw(t, "base")),
			Max:        time.Duration(rapid.Int64().Draw(t, "max")),
			MaxRetries: rapid.Int().Draw(t, "retries"),
			Jitter:     Jitter(rapid.IntRange(-1, 3).Draw(t, "jitter")),
		}
		n := rapid.Int().Draw(t, "n")
		limit := policy.withDefaults().Max

		plain := policy
		plain.Jitter = JitterNone
		unjittered := plain.Delay(n)
		assert.Positive(t, unjittered)
		assert.LessOrEqual(t, unjittered, limit)
		if n >= 0 && n < math.MaxInt {
			assert.LessOrEqual(t, unjittered, plain.Delay(n+1), "never shorter than the one before")
		}

		delay := policy.Delay(n)
		assert.GreaterOrEqual(t, delay, time.Duration(0))
		assert.LessOrEqual(t, delay, unjittered)
		if policy.Jitter == JitterEqual {
			// Float rounding may take up to 2^-52 of the wait.
			assert.GreaterOrEqual(t, delay, unjittered/2-unjittered>>50-1)
		}

		if policy.CanRetry(n) {
			assert.Less(t, n, policy.withDefaults().MaxRetries)
		}
	})
}

func TestJitterCoversItsRange(t *testing.T) {
	const draws = 5000
	for name, test := range map[string]struct {
		jitter    Jitter
		low, high time.Duration
	}{
		"full":                    {JitterFull, 0, 10 * time.Second},
		"equal":                   {JitterEqual, 5 * time.Second, 10 * time.Second},
		"full, longer than 15min": {JitterFull, 0, time.Hour},
		"equal, a century":        {JitterEqual, 50 * 365 * 24 * time.Hour, 100 * 365 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			policy := Exponential{Base: test.high, Max: test.high, Jitter: test.jitter}
			var least, most time.Duration = math.MaxInt64, 0
			for range draws {
				delay := policy.Delay(0)
				least, most = min(least, delay), max(most, delay)
			}
			// That 5,000 draws all miss a twentieth of the range has a chance of
			// 10^-111.
			slack := (test.high - test.low) / 20
			assert.GreaterOrEqual(t, least, test.low)
			assert.Less(t, least, test.low+slack)
			assert.Greater(t, most, test.high-slack)
			assert.LessOrEqual(t, most, test.high)
		})
	}
}

// Rounding doesn't carry the shortest and the longest waits over their bounds.
func TestJitterOfExtremes(t *testing.T) {
	for _, wait := range []time.Duration{1, 2, 3, 4, 5, math.MaxInt64 - 1, math.MaxInt64} {
		for _, jitter := range []Jitter{JitterFull, JitterEqual} {
			policy := Exponential{Base: wait, Max: wait, Jitter: jitter}
			for range 500 {
				delay := policy.Delay(0)
				require.GreaterOrEqual(t, delay, time.Duration(0))
				require.LessOrEqual(t, delay, wait)
			}
		}
	}
}

func TestExponentialIsSafeForConcurrentUse(t *testing.T) {
	policy := Exponential{Jitter: JitterFull}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for n := range 200 {
				assert.GreaterOrEqual(t, policy.Delay(n), time.Duration(0))
			}
		})
	}
	group.Wait()
}

func TestCanRetry(t *testing.T) {
	for name, test := range map[string]struct {
		policy Policy
		n      int
		want   bool
	}{
		"default, first":    {Exponential{}, 0, true},
		"default, last":     {Exponential{}, 4, true},
		"default, too many": {Exponential{}, 5, false},
		"one, first":        {Exponential{MaxRetries: 1}, 0, true},
		"one, second":       {Exponential{MaxRetries: 1}, 1, false},
		"largest n":         {Exponential{MaxRetries: math.MaxInt}, math.MaxInt, false},
		"negative n":        {Exponential{MaxRetries: 1}, math.MinInt, true},
		"negative field":    {Exponential{MaxRetries: -1}, 4, true},
		"and bounded":       {Exponential{MaxRetries: -1}, 5, false},
		"none":              {None{}, 0, false},
		"none, negative n":  {None{}, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, test.policy.CanRetry(test.n))
		})
	}
	assert.Zero(t, None{}.Delay(3))
}

func TestExponentialValidate(t *testing.T) {
	for name, test := range map[string]struct {
		policy Exponential
		faults []string
	}{
		"zero":           {Exponential{}, nil},
		"own":            {Exponential{Base: 1, Max: 1, MaxRetries: 1, Jitter: JitterEqual}, nil},
		"base":           {Exponential{Base: -1}, []string{"Base is -1ns, want 0 (for 5s) or more"}},
		"max":            {Exponential{Max: -1}, []string{"Max is -1ns, want 0 (for 5m0s) or more"}},
		"retries":        {Exponential{MaxRetries: -1}, []string{"MaxRetries is -1, want 0 (for 5) or more"}},
		"jitter":         {Exponential{Jitter: 3}, []string{"Jitter is 3, want 0 to 2"}},
		"base above max": {Exponential{Base: 2, Max: 1}, []string{"Base is 2ns, want at most Max, which is 1ns"}},
		"default base above max": {
			Exponential{Max: time.Second}, []string{"Base is 5s, want at most Max, which is 1s"},
		},
		"base above default max": {
			Exponential{Base: time.Hour}, []string{"Base is 1h0m0s, want at most Max, which is 5m0s"},
		},
		"all at once": {
			Exponential{Base: -1, Max: -1, MaxRetries: -1, Jitter: -1}, []string{"Base", "Max", "MaxRetries", "Jitter"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.policy.Validate()
			if test.faults == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrConfig)
			for _, fault := range test.faults {
				assert.ErrorContains(t, err, "retry: invalid config: "+fault)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for want, name := range map[string]interface{ String() string }{
		"none": JitterNone, "full": JitterFull, "equal": JitterEqual, "Jitter(7)": Jitter(7),
		"recoverable": ClassRecoverable, "transient": ClassTransient, "permanent": ClassPermanent, "Class(-1)": Class(-1),
	} {
		assert.Equal(t, want, name.String())
	}
	var zero Class
	assert.Equal(t, ClassRecoverable, zero)
}

func BenchmarkDelay(b *testing.B) {
	for _, jitter := range []Jitter{JitterNone, JitterFull, JitterEqual} {
		b.Run(jitter.String(), func(b *testing.B) {
			policy := Exponential{Jitter: jitter}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				policy.Delay(n & 7)
			}
		})
	}
}
