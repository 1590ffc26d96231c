package deliverytest

import (
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Harness is what the suite knows about a transport: how to get at it, and what
// it promises where the contract leaves that open. Open alone is required. A
// harness stands for one set of queues that are empty at first and that no
// other test uses. Its functions fail the test that they are given when they
// can't do their work.
type Harness struct {
	// Open opens one more transport on the harness's queues, as another process
	// would. The suite closes it, also twice.
	Open func(tb testing.TB) delivery.Transport

	// Kill makes a transport of Open's disappear as if its process had died:
	// its connections end with nothing settled, and it makes no new ones. Nil
	// means that closing it is all there is.
	Kill func(tb testing.TB, transport delivery.Transport)

	// Cut ends the connections of a transport of Open's, which may make new ones
	// at once. Nil means that there are no connections to lose.
	Cut func(tb testing.TB, transport delivery.Transport)

	// SendRaw puts a message into the queue of a priority that no transport of
	// ours made: the body alone, nothing of an envelope. Nil means that this can't
	// happen.
	SendRaw func(tb testing.TB, priority delivery.Priority, body []byte)

	// QueueOf names the queue that a priority's messages wait in, by the highest
	// of the priorities that share it. Those share a prefetch, too. Nil means that
	// each has a queue of its own.
	QueueOf func(priority delivery.Priority) delivery.Priority

	// DelayAccuracy is how late a delayed message may be. Default 2 seconds.
	DelayAccuracy time.Duration

	// Duplicates is how many messages may come twice in a test though all was
	// settled and closed in order. What a lost connection brings back is counted
	// beside. Default 0.
	Duplicates int

	// MaxBody is the largest body that is sent. Default 10 MiB.
	MaxBody int

	// Patience is how long the suite waits for what has to happen. Default 30
	// seconds.
	Patience time.Duration

	// Quiet is how long the suite waits for what must not happen. Default 200
	// milliseconds.
	Quiet time.Duration
}

func (h Harness) withDefaults() Harness {
	if h.QueueOf == nil {
		h.QueueOf = func(priority delivery.Priority) delivery.Priority { return priority }
	}
	if h.DelayAccuracy <= 0 {
		h.DelayAccuracy = 2 * time.Second
	}
	if h.MaxBody <= 0 {
		h.MaxBody = 10 << 20
	}
	if h.Patience <= 0 {
		h.Patience = 30 * time.Second
	}
	if h.Quiet <= 0 {
		h.Quiet = 200 * time.Millisecond
	}
	return h
}
