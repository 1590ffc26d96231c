package main

import (
	"context"
	"time"
)

// What both sides of all rows have in common.
const (
	bodyBytes = 1024
	workers   = 16  // handlers that run at once
	prefetch  = 256 // messages that a consumer may have in hand
)

// row is one comparison.
type row struct {
	name   string
	target float64 // the least ratio of ours to theirs that is good enough
	// messages for each side: some seconds' work for the slower one.
	messages     int
	ours, theirs side
}

// side does one side's work with n messages, on queues of its own, and returns
// how long the part took that is measured. It fails unless every message was
// handled, or stored, exactly once, and every one was acked.
type side func(ctx context.Context, where addresses, n int) (time.Duration, error)

// addresses are where the servers are.
type addresses struct{ amqp, redis string }

// unit is of all figures so far.
const unit = "messages/s"

func rows() []row {
	return []row{
		{name: "publish-raw", target: 0.95, messages: 60_000, ours: publishBarid, theirs: publishRaw},
		{name: "publish-watermill", target: 3, messages: 30_000, ours: publishBarid, theirs: publishWatermill},
		{name: "consume-raw", target: 1, messages: 60_000, ours: consumeBarid, theirs: consumeRaw},
		{name: "consume-watermill", target: 2, messages: 60_000, ours: consumeBarid, theirs: consumeWatermill},
		{name: "consume-redis", target: 0.8, messages: 60_000, ours: consumeBaridRedis, theirs: consumeBarid},
		{name: "pipeline-watermill", target: 20, messages: 300_000, ours: pipelineBarid, theirs: pipelineWatermill},
	}
}
