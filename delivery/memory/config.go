package memory

import (
	"errors"
	"fmt"

	"github.com/esh3artech/barid/delivery"
)

// ErrConfig says that a Config or StoreConfig can't be used. The text names
// every field at fault.
var ErrConfig = errors.New("memory: invalid config")

// Config says how much a transport holds. The zero value is ready to use.
type Config struct {
	// Name is what Transport.Name returns. Queues that share a message store or
	// idempotency keys need different ones. Default "memory".
	Name string
	// MaxMessages bounds three things, each by itself: the messages that are ready
	// to be received, over all priorities; the delayed messages; and the dead
	// letters. Messages in hand don't count. A message that comes back, or becomes
	// due, is taken in even when there is no room. Default 100,000.
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
