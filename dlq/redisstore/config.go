package redisstore

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Config says how a Store uses Redis. The zero value is usable.
type Config struct {
	// Prefix begins every key of the store, in braces: with the default
	// "barid:dlq" there are keys such as "{barid:dlq}:index". The braces keep all
	// keys of a store on one node of a cluster. Stores with the same prefix share
	// their entries. A Prefix with a pair of braces in it gets no others: with
	// "barid:{dlq}" the index is "barid:{dlq}:index", and an ACL that allows ~barid:*
	// fits the keys of idempotency/redisstore and of these. At most 256 bytes.
	Prefix string
	// Timeout bounds each round trip, with all that the client does for it:
	// waiting for a connection, dialing, sending again. A call takes a few round
	// trips, and more for many entries. Its context bounds all of them together.
	// At least 1 ms. Default 5 s.
	Timeout time.Duration
	// AllowEviction accepts that Redis may evict keys, so that dead letters get
	// lost. The policy is not asked for then. It is for servers that do not tell
	// their policy.
	AllowEviction bool
}

const maxPrefixBytes = 256

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "barid:dlq"
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	return c
}

func (c *Config) validate() error {
	var faults []error
	if before, after, braces := strings.Cut(c.Prefix, "{"); braces || strings.Contains(before, "}") {
		tag, rest, closed := strings.Cut(after, "}")
		if tag == "" || !closed || strings.ContainsAny(before+tag+rest, "{}") {
			faults = append(faults, fmt.Errorf("%w: Prefix is %.64q, want no braces, or one pair with something in it", ErrConfig, c.Prefix))
		}
	}
	if len(c.Prefix) > maxPrefixBytes {
		faults = append(faults, fmt.Errorf("%w: Prefix has %d bytes, want at most %d", ErrConfig, len(c.Prefix), maxPrefixBytes))
	}
	if c.Timeout < time.Millisecond {
		faults = append(faults, fmt.Errorf("%w: Timeout is %v, want at least %v", ErrConfig, c.Timeout, time.Millisecond))
	}
	return errors.Join(faults...)
}
