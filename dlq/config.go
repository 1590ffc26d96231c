package dlq

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/metrics"
)

// Defaults and bounds of Config.
const (
	DefaultLease     = 2 * time.Minute
	MinLease         = time.Second
	DefaultBatchSize = 100
	MaxBatchSize     = 1000
)

// Config configures a Manager.
type Config struct {
	// Lease is how long a claim keeps others from an entry that is being
	// requeued. After a crash the entry can't be requeued or deleted for as long.
	// Sending one batch may take half of it. It is also how long a replay job
	// whose runner died waits for another runner. Default DefaultLease, at least
	// MinLease.
	Lease time.Duration
	// BatchSize is how many entries are requeued or deleted together. As many
	// bodies are in memory at once, and as many again for each replay job that
	// is running. Default DefaultBatchSize, from 1 to MaxBatchSize.
	BatchSize int
	// Metrics gets metrics.DeadLettersTotal and metrics.DeadLetters. The first
	// counts every letter stored, a repeated one included. The second is there as
	// soon as the entries have been counted for the first time. That is done in the
	// background: when the Manager is made, after changes that it makes, at most
	// every 5 s, and every minute in RunJobs, because of what other processes
	// change. Stats sets it, too. Default none.
	Metrics metrics.Recorder
	// Logger gets a Debug event for each dead letter with its ID and its message's,
	// because whoever gave the message up logs that itself. It is an Error event for
	// what a broker gave up. Each batch requeued or deleted, and each purge that
	// deleted any, is an Info event. Default none.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Lease = cmp.Or(c.Lease, DefaultLease)
	c.BatchSize = cmp.Or(c.BatchSize, DefaultBatchSize)
	c.Metrics = metrics.Guarded(c.Metrics)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c *Config) validate() error {
	var faults []error
	if c.Lease < MinLease {
		faults = append(faults, fmt.Errorf("%w: Lease is %s, want at least %s", ErrConfig, c.Lease, MinLease))
	}
	if c.BatchSize < 1 || c.BatchSize > MaxBatchSize {
		faults = append(faults, fmt.Errorf("%w: BatchSize is %d, want 1 to %d", ErrConfig, c.BatchSize, MaxBatchSize))
	}
	return errors.Join(faults...)
}
