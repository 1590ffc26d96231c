package redisstate

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"
)

// The defaults of Config.
const (
	defaultPrefix  = "barid:breaker:"
	defaultEvery   = time.Second
	defaultTimeout = time.Second
	defaultLease   = 5 * time.Second
)

const (
	minEvery = 10 * time.Millisecond
	maxEvery = time.Minute
	maxLease = time.Hour
	maxText  = 1000
)

// Config says how a Fleet uses Redis. The zero value has all the defaults. All
// instances should have the same Prefix and similar times.
type Config struct {
	// Prefix comes before a breaker's name in its key in Redis. Default
	// "barid:breaker:".
	Prefix string
	// Instance is what other instances and operators call this one. At most 1000
	// bytes. Default: the host's name, the process ID and four random characters.
	Instance string
	// Every is how often Redis is read, for all breakers in one pipeline. It is
	// also the most that a change elsewhere takes to be noticed here. Changes of
	// this instance are written at once, though no more often than ten times in
	// Every. Default 1 s; 10 ms to 1 min.
	Every time.Duration
	// Timeout bounds one exchange with Redis; what takes longer counts as Redis
	// being away. Default 1 s; 1 ms to 1 min.
	Timeout time.Duration
	// Lease is how long the right to probe lasts when the instance that has it is
	// gone. An instance that is there renews it until the outcome is known. One
	// that has nothing to probe with gives it back when others ask for it: after
	// Lease the first time, and after twice as long each time that it happens
	// again. At least 2 (Every + Timeout), at most an hour. Default 5 s, or the
	// least if that is longer.
	Lease time.Duration
	// Logger is told when Redis goes away and comes back (Warn, Info), and of
	// forces (Warn). Default: none.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if c.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		c.Instance = host + "/" + strconv.Itoa(os.Getpid()) + "-" + rand.Text()[:4]
	}
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Lease == 0 {
		c.Lease = max(defaultLease, c.leastLease())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// leastLease is what lets an instance renew its lease before it ends.
func (c Config) leastLease() time.Duration { return 2 * (c.Every + c.Timeout) }

// validate reports every fault of a Config that has its defaults.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if len(c.Instance) > maxText {
		fault("Instance has %d bytes, want at most %d", len(c.Instance), maxText)
	}
	if c.Every < minEvery || c.Every > maxEvery {
		fault("Every is %v, want %v to %v", c.Every, minEvery, maxEvery)
	}
	if c.Timeout < time.Millisecond || c.Timeout > maxEvery {
		fault("Timeout is %v, want %v to %v", c.Timeout, time.Millisecond, maxEvery)
	}
	if c.Lease < c.leastLease() || c.Lease > maxLease {
		fault("Lease is %v, want 2 (Every + Timeout), which is %v, to %v", c.Lease, c.leastLease(), maxLease)
	}
	return errors.Join(faults...)
}
