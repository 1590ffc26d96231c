package memory

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// message is an envelope in the queues. It is never changed once it is there:
// receipts get copies.
type message struct {
	envelope delivery.Envelope
	level    int
	// place orders the messages of a level. It is given when the message becomes
	// ready, and kept over redeliveries.
	place uint64
	// ready is since when it is fit to be received.
	ready time.Time
}

const levels = 4

// levelOf is the index of a priority's queue, the highest first.
func levelOf(priority delivery.Priority) int { return int(delivery.Urgent - priority) }

func priorityOf(level int) delivery.Priority { return delivery.Urgent - delivery.Priority(level) }

// isolate cuts what the envelope shares with whoever gave it.
func isolate(envelope *delivery.Envelope) {
	envelope.Body = bytes.Clone(envelope.Body)
	if len(envelope.Headers) > 0 {
		envelope.Headers = maps.Clone(envelope.Headers)
	} else {
		envelope.Headers = nil
	}
	envelope.History = slices.Clone(envelope.History)
}
