package delivery

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

// PublisherConfig configures a Publisher. The zero value is ready to use. A field that
// has no effect, because another one is not set, is a warning to Logger.
type PublisherConfig struct {
	// Queue is the queue that the messages belong to: their records have it, and
	// idempotency keys are known within it. Give it the ConsumerConfig.Name of the
	// consumers that take them; publishers of different queues have different ones.
	// At most 255 bytes. Default: the transport's name, if it is a Namer. Required
	// where Store or Idempotency is set.
	Queue string
	// Idempotency, when set, keeps a second message with the same idempotency
	// key from being sent within IdempotencyTTL. Nil sends all of them; consumers
	// with an idempotency store of their own still handle them once.
	Idempotency idempotency.Store
	// IdempotencyTTL is for how long a published key is remembered. Default 24 h.
	IdempotencyTTL time.Duration
	// IdempotencyLease bounds for how long a publisher that died keeps others
	// from publishing the same key. Default 1 min, less than IdempotencyTTL.
	IdempotencyLease time.Duration
	// MaxBodyBytes bounds Message.Body. Default 16 MiB; a transport may have a
	// lower limit of its own.
	MaxBodyBytes int
	// BatchSizeLimit bounds how many messages SendBatch takes. Default 1000.
	BatchSizeLimit int
	// NoBatch switches SendBatch off: it is ErrSwitchedOff then.
	NoBatch bool
	// OnePriority sends every message as Normal, whatever its Priority, which
	// must be valid all the same. Messages that were sent before keep theirs.
	OnePriority bool

	// Store, when set, keeps a record of every message. A message is durable then as
	// soon as it is saved: Publish returns, and the message is sent in the
	// background. What can't be sent a RetryWorker sends, which some process has
	// to run; where none does, make the Store one of RecordsOnly. Call Close at the
	// end. Nil keeps no records.
	Store Store
	// PendingGrace is for how long a saved message is the publisher's to send, and
	// after which a RetryWorker takes over. By that much later a message goes out
	// whose publisher died, or could not reach the transport. Default 1 min, at
	// least 1 s.
	PendingGrace time.Duration
	// MaxOutgoing bounds how many saved messages wait here to be sent, except for
	// those of calls that began at the same time. A call whose messages go beyond
	// it, or beyond 64 MiB of bodies, saves them for RetryWorkers to send at once.
	// Default 1000.
	MaxOutgoing int
	// Metrics takes barid_messages_published_total and barid_publish_seconds.
	// Nil discards.
	Metrics metrics.Recorder
	// Logger: nil discards. Bodies and recipients are never logged.
	Logger *slog.Logger

	settings error // what is wrong with the Settings that were put into it
	managed  bool  // Settings were put into it
}

func (c PublisherConfig) withDefaults(transport Transport) PublisherConfig {
	if c.Queue == "" && transport != nil {
		c.Queue = nameOf(transport)
	}
	if c.IdempotencyTTL == 0 {
		c.IdempotencyTTL = 24 * time.Hour
	}
	if c.IdempotencyLease == 0 {
		c.IdempotencyLease = time.Minute
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = DefaultMaxBody
	}
	if c.BatchSizeLimit == 0 {
		c.BatchSizeLimit = defaultBatchSizeLimit
	}
	if c.PendingGrace == 0 {
		c.PendingGrace = time.Minute
	}
	if c.MaxOutgoing == 0 {
		c.MaxOutgoing = 1000
	}
	c.Logger = guardedLogger(c.Logger)
	return c
}

func (c PublisherConfig) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: PublisherConfig."+format, append([]any{ErrConfig}, args...)...))
	}
	if c.Queue == "" && (c.Store != nil || c.Idempotency != nil) {
		fault("Queue is empty, and the transport has no name of its own")
	}
	if len(c.Queue) > MaxIDBytes {
		fault("Queue has %d bytes, want at most %d", len(c.Queue), MaxIDBytes)
	}
	if c.IdempotencyLease < 0 {
		fault("IdempotencyLease is %s, want more than 0", c.IdempotencyLease)
	}
	if c.IdempotencyTTL <= c.IdempotencyLease {
		fault("IdempotencyTTL is %s, want more than IdempotencyLease (%s)", c.IdempotencyTTL, c.IdempotencyLease)
	}
	if c.MaxBodyBytes < 0 {
		fault("MaxBodyBytes is %d, want at least 1", c.MaxBodyBytes)
	}
	if c.BatchSizeLimit < 0 {
		fault("BatchSizeLimit is %d, want at least 1", c.BatchSizeLimit)
	}
	if c.PendingGrace < time.Second {
		fault("PendingGrace is %s, want at least 1s", c.PendingGrace)
	}
	if c.MaxOutgoing < 0 {
		fault("MaxOutgoing is %d, want at least 1", c.MaxOutgoing)
	}
	return errors.Join(append(faults, c.settings,
		faultOf("PublisherConfig.Idempotency", c.Idempotency),
		faultOf("PublisherConfig.Store", c.Store))...)
}

// idleFields are those that may have no effect. They are asked before the defaults are
// filled in.
func (c *PublisherConfig) idleFields(transport Transport) []idleField {
	keys := c.Idempotency != nil
	waits := schedules(c.Store)
	named := c.Queue != "" && c.Queue != nameOf(transport)
	return []idleField{
		{"PublisherConfig.Queue", "Store or Idempotency; the transport says where messages go", named && c.Store == nil && !keys},
		{"PublisherConfig.IdempotencyTTL", "Idempotency", c.IdempotencyTTL != 0 && !keys && !c.managed},
		{"PublisherConfig.IdempotencyLease", "Idempotency", c.IdempotencyLease != 0 && !keys},
		{"PublisherConfig.BatchSizeLimit", "no NoBatch", c.BatchSizeLimit != 0 && c.NoBatch && !c.managed},
		{"PublisherConfig.PendingGrace", "a Store in which messages wait", c.PendingGrace != 0 && !waits},
		{"PublisherConfig.MaxOutgoing", "a Store in which messages wait", c.MaxOutgoing != 0 && !waits},
	}
}
