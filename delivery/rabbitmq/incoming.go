package rabbitmq

import (
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// incoming is one delivery. It belongs to the stream that it came by.
type incoming struct {
	receipt // guarded by stream.mu

	stream   *stream
	delivery amqp.Delivery
	priority delivery.Priority

	decode   sync.Once
	envelope *delivery.Envelope
	fault    error
}

// Priority implements delivery.Incoming.
func (in *incoming) Priority() delivery.Priority { return in.priority }

// Envelope implements delivery.Incoming.
func (in *incoming) Envelope() (*delivery.Envelope, error) {
	in.decode.Do(func() {
		in.envelope, in.fault = in.stream.limits.decode(&in.delivery)
		in.delivery.Headers = nil // read, and the larger part
	})
	return in.envelope, in.fault
}

// Ack implements delivery.Incoming.
func (in *incoming) Ack() error { return in.stream.ack(&in.receipt) }

// Nack implements delivery.Incoming.
func (in *incoming) Nack() error { return in.stream.nack(&in.receipt) }
