package memory

import (
	"errors"
	"fmt"

	"github.com/esh3artech/barid/delivery"
)

// ErrConfig says that a Config can't be used; the text names every field.
var ErrConfig = errors.New("memory: invalid config")

// Config says how much a transport holds. The zero value is ready to use.
type Config struct {
	// Name is what the transport calls itself. Default "memory".
	Name string
	// MaxMessages bounds what waits: so many messages that are ready, over all
	// priorities, beside them so many delayed ones, and so many dead letters.
	// What was received does not count; what comes back, or becomes due, is let
	// in even when its queue is full. Default 100,000.
	MaxMessages int
	// MaxBodyBytes bounds one body. Default delivery.DefaultMaxBody, 16 MiB.
	MaxBodyBytes int
}

func (c Config) withDefaults() (Config, error) {
	var faults []error
	fault := func(field string, value int) {
		faults = append(faults, fmt.Errorf("%w: %s is %d, want 1 or more, or 0 for the default", ErrConfig, field, value))
	}
	if c.Name == "" {
		c.Name = "memory"
	}
	switch {
	case c.MaxMessages == 0:
		c.MaxMessages = 100_000
	case c.MaxMessages < 0:
		fault("MaxMessages", c.MaxMessages)
	}
	switch {
	case c.MaxBodyBytes == 0:
		c.MaxBodyBytes = delivery.DefaultMaxBody
	case c.MaxBodyBytes < 0:
		fault("MaxBodyBytes", c.MaxBodyBytes)
	}
	return c, errors.Join(faults...)
}
