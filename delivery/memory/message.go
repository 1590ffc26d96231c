package memory

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// message is an envelope in the queues. It does not change once it is there:
// each receipt gets a copy.
type message struct {
	envelope delivery.Envelope
	level    int
	// place orders the messages of a level. The message gets it when it becomes
	// ready, and keeps it over redeliveries.
	place uint64
	// ready is the time from which on the message can be received.
	ready time.Time
}

const levels = 4

// levelOf is the index of a priority's queue, the highest first.
func levelOf(priority delivery.Priority) int { return int(delivery.Urgent - priority) }

func priorityOf(level int) delivery.Priority { return delivery.Urgent - delivery.Priority(level) }

// isolate copies what the envelope shares with its caller.
func isolate(envelope *delivery.Envelope) {
	envelope.Body = bytes.Clone(envelope.Body)
	if len(envelope.Headers) > 0 {
		envelope.Headers = maps.Clone(envelope.Headers)
	} else {
		envelope.Headers = nil
	}
	envelope.History = slices.Clone(envelope.History)
}
