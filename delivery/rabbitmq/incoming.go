package rabbitmq

import (
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// incoming is one delivery. Only the channel that it came by can settle it.
type incoming struct {
	receipt // guarded by channel.mu

	channel  *consumerChannel
	delivery amqp.Delivery
	priority delivery.Priority

	decode   sync.Once
	envelope *delivery.Envelope
	fault    error
}

var (
	_ delivery.Incoming         = (*incoming)(nil)
	_ delivery.QueueTeller      = (*incoming)(nil)
	_ delivery.StaleTeller      = (*incoming)(nil)
	_ delivery.RedeliveryTeller = (*incoming)(nil)
)

// Priority implements delivery.Incoming.
func (in *incoming) Priority() delivery.Priority { return in.priority }

// Queue implements delivery.QueueTeller. With shards it is the shard's queue, and
// levels that share a queue share its prefetch.
func (in *incoming) Queue() (name string, prefetch int) {
	source := in.channel.source
	return source.queue, source.prefetch(in.channel.subscription.prefetch)
}

// Stale implements delivery.StaleTeller.
func (in *incoming) Stale() bool { return in.channel.isStale() }

// Envelope implements delivery.Incoming.
func (in *incoming) Envelope() (*delivery.Envelope, error) {
	in.decode.Do(func() {
		in.envelope, in.fault = in.channel.limits.decode(&in.delivery)
		in.delivery.Headers = nil // they are in the envelope, and take more room than it
	})
	return in.envelope, in.fault
}

// Redeliveries implements delivery.RedeliveryTeller. Quorum queues count them (from
// 4.3 on a nack does not count); of a classic queue it is 1 at most. After Envelope the
// counts are no longer known.
func (in *incoming) Redeliveries() (times, crashes int) {
	suspicions, _ := integer(in.delivery.Headers[headerCrashes])
	if in.delivery.Redelivered {
		count, _ := integer(in.delivery.Headers[headerDeliveryCount])
		times = int(max(1, min(count, maxCount)))
	}
	return times, int(max(0, min(suspicions, maxCount)))
}

// Ack implements delivery.Incoming.
func (in *incoming) Ack() error { return in.channel.ack(&in.receipt) }

// Nack implements delivery.Incoming.
func (in *incoming) Nack() error { return in.channel.nack(&in.receipt) }
