package retry

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// ErrConfig means that a configuration can't be used; the text names every field.
var ErrConfig = errors.New("retry: invalid config")

// The defaults of Exponential.
const (
	defaultBase       = 5 * time.Second
	defaultMax        = 5 * time.Minute
	defaultMaxRetries = 5
)

// Jitter spreads waits by chance, so that what failed together isn't tried again
// together.
type Jitter int

// The kinds of jitter. d is the wait without jitter; no kind makes it longer.
const (
	JitterNone  Jitter = iota // d itself; the zero value
	JitterFull                // anything from 0 to d
	JitterEqual               // anything from d/2 to d
)

// String is the lower-case name of j.
func (j Jitter) String() string {
	switch j {
	case JitterNone:
		return "none"
	case JitterFull:
		return "full"
	case JitterEqual:
		return "equal"
	}
	return fmt.Sprintf("Jitter(%d)", int(j))
}

// Exponential is a Policy that waits min(Max, Base * 2^n) before retry n. The
// zero value has all the defaults. It is a value: copy it freely.
//
// Where a field is invalid, Delay and CanRetry use its default, and Validate names
// it.
type Exponential struct {
	// Base is the wait before the first retry. Default 5 s; negative is invalid.
	Base time.Duration
	// Max bounds every wait. Default 5 min; negative, or less than Base (given
	// or default), is invalid. A Base above Max waits Max.
	Max time.Duration
	// MaxRetries is how many retries are allowed after the first run. Default 5;
	// negative is invalid. For no retry at all use None.
	MaxRetries int
	// Jitter spreads the waits. Default JitterNone.
	Jitter Jitter
}

var _ Policy = Exponential{}

// Delay is min(Max, Base * 2^n), shortened by the jitter. Whatever n is, it is at
// least 0 and at most Max. A negative n counts as 0.
func (e Exponential) Delay(n int) time.Duration {
	e = e.withDefaults()
	wait, limit := float64(e.Base)*math.Pow(2, float64(max(n, 0))), float64(e.Max)
	if !(wait < limit) { // true for +Inf and NaN as well, unlike wait >= limit
		return e.Jitter.shorten(e.Max)
	}
	return e.Jitter.shorten(time.Duration(wait))
}

// CanRetry says whether n < MaxRetries. A negative n counts as 0.
func (e Exponential) CanRetry(n int) bool {
	return max(n, 0) < e.withDefaults().MaxRetries
}

// Validate returns an error that names every fault and matches ErrConfig, or nil.
func (e Exponential) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if e.Base < 0 {
		fault("Base is %v, want 0 (for %v) or more", e.Base, defaultBase)
	}
	if e.Max < 0 {
		fault("Max is %v, want 0 (for %v) or more", e.Max, defaultMax)
	}
	if e.MaxRetries < 0 {
		fault("MaxRetries is %d, want 0 (for %d) or more", e.MaxRetries, defaultMaxRetries)
	}
	if e.Jitter < JitterNone || e.Jitter > JitterEqual {
		fault("Jitter is %d, want %d to %d", int(e.Jitter), int(JitterNone), int(JitterEqual))
	}
	if used := e.withDefaults(); e.Base >= 0 && e.Max >= 0 && used.Base > used.Max {
		fault("Base is %v, want at most Max, which is %v", used.Base, used.Max)
	}
	return errors.Join(faults...)
}

// withDefaults has the default wherever a field is zero or invalid.
func (e Exponential) withDefaults() Exponential {
	if e.Base <= 0 {
		e.Base = defaultBase
	}
	if e.Max <= 0 {
		e.Max = defaultMax
	}
	if e.MaxRetries <= 0 {
		e.MaxRetries = defaultMaxRetries
	}
	return e
}

// shorten draws a wait of at most d by j.
func (j Jitter) shorten(d time.Duration) time.Duration {
	switch j {
	case JitterFull:
		return within(d, d/2, 1)
	case JitterEqual:
		return within(d, d-d/4, 1.0/3)
	case JitterNone:
	}
	return d
}

// within draws from middle * (1 ± factor), but nothing above limit.
//
// A backoff has state and is not safe for concurrent use, so each draw makes one,
// which never advances (Multiplier 1). MaxElapsedTime 0 keeps it from returning
// Stop, which is a negative wait.
func within(limit, middle time.Duration, factor float64) time.Duration {
	drawn := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(middle),
		backoff.WithRandomizationFactor(factor),
		backoff.WithMultiplier(1),
		backoff.WithMaxInterval(limit),
		backoff.WithMaxElapsedTime(0),
	).NextBackOff()
	if drawn < 0 || drawn > limit { // by rounding, where the limit is very short or centuries
		return limit
	}
	return drawn
}
