package dlq

import (
	"context"

	"github.com/esh3artech/barid/delivery"
)

// Sender makes envelopes durable where consumers find them. Manager.Requeue and
// replay jobs send through it. delivery.Publisher is one.
type Sender interface {
	// Forward sends the envelopes with their Generation, Attempt and History as
	// they are, and returns nil when all are durable. A *delivery.ResultsError
	// tells the outcome of each. Any other error is that of all. An envelope that
	// was sent before in the same generation has to be sent again, because it is
	// consumers that suppress duplicates. Forward returns when ctx ends, and must
	// not change or retain what it is given.
	Forward(ctx context.Context, envelopes ...delivery.Envelope) error
}

var _ Sender = (*delivery.Publisher)(nil)
