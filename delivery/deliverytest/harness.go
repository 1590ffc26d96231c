package deliverytest

import (
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Harness tells the suite how to open a transport, and what the transport
// promises where the contract leaves that open. Only Open is required. A
// harness stands for one set of queues, which are empty at first and which no
// other test uses. Its functions get a testing.TB, and fail that test when they
// can't do their work.
type Harness struct {
	// Open opens one more transport on the harness's queues, as another process
	// would do. The suite closes it, sometimes twice.
	Open func(tb testing.TB) delivery.Transport

	// Kill ends a transport that Open returned as if its process had been killed:
	// its connections end with nothing settled, and it makes no new ones. When
	// Kill is nil, the suite closes the transport instead.
	Kill func(tb testing.TB, transport delivery.Transport)

	// Cut ends the connections of a transport that Open returned. The transport
	// may make new ones at once. Nil means that it has no connections to lose.
	Cut func(tb testing.TB, transport delivery.Transport)

	// SendRaw puts a message into the queue of a priority as a foreign program
	// would: it has the body alone, and nothing of an envelope. Nil means that
	// this can't happen.
	SendRaw func(tb testing.TB, priority delivery.Priority, body []byte)

	// QueueOf names the queue in which a priority's messages wait, by the highest
	// priority that shares the queue. Priorities that share a queue share its
	// prefetch, too. Nil means that each priority has a queue of its own.
	QueueOf func(priority delivery.Priority) delivery.Priority

	// DelayAccuracy is how late a delayed message may be. Default 2 seconds.
	DelayAccuracy time.Duration

	// Duplicates is how many messages may come twice in a test although all were
	// settled, and everything was closed in order. Messages that come again after
	// a lost connection don't count. Default 0.
	Duplicates int

	// MaxBody is the largest body that is sent. Default 10 MiB.
	MaxBody int

	// Patience is how long the suite waits for what has to happen, before it
	// fails. Default 30 seconds.
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
