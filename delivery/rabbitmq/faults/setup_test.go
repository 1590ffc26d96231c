package faults

import (
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/dlq"
)

// setup is what is special about a row's pipeline.
type setup struct {
	amqp, redis string // URLs, by default the shared servers'
	transport   func(*rabbitmq.Config)
	consumer    func(*delivery.ConsumerConfig)
	// handler runs before the effect; with an error there is none.
	handler delivery.Handler
	// timeout bounds each Publish. Default 10 s, which a healthy broker keeps to
	// on a busy machine, too.
	timeout time.Duration
	maxBody int // of the publisher
	// noConsumer leaves consuming to others.
	noConsumer bool
	// onAck taps the transport, see tappedTransport.
	onAck func(id string, in delivery.Incoming) bool
	// onCompleted taps the idempotency store.
	onCompleted func(key string)
	// lean keeps nothing of each message.
	lean bool
	// letters keeps dead letters. Default a dlq.Memory.
	letters dlq.Store
	// database keeps a record of every message. Nil: nobody does.
	database *database
	// keys has the database suppress duplicates, too, instead of Redis.
	keys bool
	// onUpdate is told what the database made of the consumer's news.
	onUpdate func(update delivery.Update, err error)
	// pendingGrace is the publisher's.
	pendingGrace time.Duration
}
