package breaker

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// DefaultProbeTimeout is the default of Config.ProbeTimeout, for hosts that need a
// longer one only if their calls do.
const DefaultProbeTimeout = time.Minute

const (
	defaultThreshold  = 0.5
	defaultSampleSize = 10
	defaultOpenFor    = 30 * time.Second
	defaultProbes     = 1

	maxCount = 1_000_000
	maxWait  = 365 * 24 * time.Hour
)

// Config says when a Breaker opens and how it closes again. The zero value has
// all the defaults.
type Config struct {
	// Name is what errors and Changes call the breaker. Default empty.
	Name string
	// Threshold is the share of failures among the last SampleSize outcomes
	// that opens the breaker. Default 0.5; above 0, at most 1.
	Threshold float64
	// SampleSize is how many outcomes are looked at. The breaker stays closed while
	// it knows fewer. Default 10; at most 1,000,000.
	SampleSize int
	// OpenFor is how long the breaker stays open before it lets probes through.
	// Default 30 s; at most a year.
	OpenFor time.Duration
	// Probes is how many calls a half-open breaker lets through, and how many
	// successes close it. Default 1; at most 1,000,000.
	Probes int
	// ProbeTimeout is how long a probe may take to report. Then it counts as
	// Abandoned, and its own report is ignored. It should be longer than the longest
	// call. Default 1 min; at most a year.
	ProbeTimeout time.Duration
	// OnChange is called with every change of state, as Watch's observers are, and
	// before them. Default none.
	OnChange func(Change)
	// Logger is told of observers that panic. Nil discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Threshold == 0 {
		c.Threshold = defaultThreshold
	}
	if c.SampleSize == 0 {
		c.SampleSize = defaultSampleSize
	}
	if c.OpenFor == 0 {
		c.OpenFor = defaultOpenFor
	}
	if c.Probes == 0 {
		c.Probes = defaultProbes
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = DefaultProbeTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate reports every fault of a Config that has its defaults.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if !(c.Threshold > 0 && c.Threshold <= 1) { // false for NaN
		fault("Threshold is %v, want above 0 and at most 1", c.Threshold)
	}
	if c.SampleSize < 1 || c.SampleSize > maxCount {
		fault("SampleSize is %d, want 1 to %d", c.SampleSize, maxCount)
	}
	if c.OpenFor < 1 || c.OpenFor > maxWait {
		fault("OpenFor is %v, want above 0 and at most %v", c.OpenFor, maxWait)
	}
	if c.Probes < 1 || c.Probes > maxCount {
		fault("Probes is %d, want 1 to %d", c.Probes, maxCount)
	}
	if c.ProbeTimeout < 1 || c.ProbeTimeout > maxWait {
		fault("ProbeTimeout is %v, want above 0 and at most %v", c.ProbeTimeout, maxWait)
	}
	return errors.Join(faults...)
}
