package redisstore

import (
	"errors"
	"fmt"
	"time"
)

// ErrConfig means that a configuration can't be used; the text names every field.
var ErrConfig = errors.New("redisstore: invalid config")

// Config says how a Store uses Redis. The zero value is usable.
type Config struct {
	// Prefix comes before every key in Redis, to keep it apart from others.
	// Default "barid:".
	Prefix string
	// MaxBatch bounds how many calls become one pipeline. At most 10,000. Default
	// 256.
	MaxBatch int
	// MaxWait bounds how long a call waits for others while a pipeline is in
	// flight. With none in flight it waits only for goroutines that are about to
	// make their calls. At most 1 s. Default 1 ms.
	MaxWait time.Duration
	// MaxInFlight bounds how many pipelines are in flight at once. Each takes a
	// connection, to each node of a cluster. Default 8.
	MaxInFlight int
	// MaxQueue bounds how many calls wait or are in flight. Further ones wait for
	// room, for no longer than their context lasts. At least MaxBatch. Default
	// 16,384, or MaxBatch if that is more.
	MaxQueue int
	// Timeout bounds one pipeline, and the check of the eviction policy, with all
	// that the client does to get through: dialing, waiting for a connection,
	// sending again. Default 3 s.
	Timeout time.Duration
	// AllowEviction accepts that Redis may evict keys, and so that duplicates may
	// run. The policy is not asked for then.
	AllowEviction bool
}

const (
	maxBatchLimit = 10_000
	maxWaitLimit  = time.Second
)

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "barid:"
	}
	if c.MaxBatch == 0 {
		c.MaxBatch = 256
	}
	if c.MaxWait == 0 {
		c.MaxWait = time.Millisecond
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 8
	}
	if c.MaxQueue == 0 {
		c.MaxQueue = max(16_384, c.MaxBatch)
	}
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	return c
}

func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if c.MaxBatch < 1 || c.MaxBatch > maxBatchLimit {
		fault("MaxBatch is %d, want 1 to %d", c.MaxBatch, maxBatchLimit)
	}
	if c.MaxWait < 0 || c.MaxWait > maxWaitLimit {
		fault("MaxWait is %v, want 0 to %v", c.MaxWait, maxWaitLimit)
	}
	if c.MaxInFlight < 1 {
		fault("MaxInFlight is %d, want at least 1", c.MaxInFlight)
	}
	if c.MaxQueue < c.MaxBatch {
		fault("MaxQueue is %d, want at least MaxBatch, which is %d", c.MaxQueue, c.MaxBatch)
	}
	if c.Timeout < time.Millisecond {
		fault("Timeout is %v, want at least %v", c.Timeout, time.Millisecond)
	}
	return errors.Join(faults...)
}
