package faults

import (
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/dlq"
)

// pipelineConfig is what a row changes about its pipeline.
type pipelineConfig struct {
	amqp, redis string // URLs, by default the shared servers'
	transport   func(*rabbitmq.Config)
	consumer    func(*delivery.ConsumerConfig)
	// handler runs before the effect; with an error there is none.
	handler delivery.Handler
	// timeout bounds each Publish. Default 10 s, which is enough for a healthy
	// broker, also on a busy machine.
	timeout time.Duration
	maxBody int // of the publisher
	// noConsumer has the pipeline publish only.
	noConsumer bool
	// onAck is the hook of hookedTransport.
	onAck func(id string, in delivery.Incoming) bool
	// onCompleted is called when a key is completed in the idempotency store.
	onCompleted func(key string)
	// lean has the pipeline keep nothing of each message, so that its memory can be
	// measured.
	lean bool
	// deadLetters stores dead letters. Default a dlq.Memory.
	deadLetters dlq.Store
	// database keeps a record of every message. With nil there are no records.
	database *database
	// keysInDatabase has the database suppress duplicates, instead of Redis.
	keysInDatabase bool
	// onUpdate is called with the result of each update by the consumer.
	onUpdate func(update delivery.Update, err error)
	// pendingGrace is the publisher's.
	pendingGrace time.Duration
}
