package main

import (
	"context"
	"slices"
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
	unit         string
	uses         []server
	ours, theirs side
}

// side does one side's work with n messages, on queues and tables of its own,
// and returns how long the part took that is measured. It fails unless every
// message was handled, or stored, exactly once, and every one was acked.
type side func(ctx context.Context, where addresses, n int) (time.Duration, error)

// inMessages is the unit of most figures.
const inMessages = "messages/s"

// addresses are where the servers are, empty for those that no row uses.
type addresses struct {
	amqp, redis, postgres string
	// stored is how many records the fuller store of scan-scale has.
	stored int
}

// server is a kind of server.
type server int

const (
	rabbitMQ server = iota
	redisServer
	postgreSQL
)

func (s server) String() string { return [...]string{"RabbitMQ", "Redis", "PostgreSQL"}[s] }

func rows() []row {
	return []row{
		{name: "publish-raw", target: 0.95, messages: 60_000, unit: inMessages, uses: []server{rabbitMQ}, ours: publishBarid, theirs: publishRaw},
		{name: "publish-watermill", target: 3, messages: 30_000, unit: inMessages, uses: []server{rabbitMQ}, ours: publishBarid, theirs: publishWatermill},
		{name: "consume-raw", target: 1, messages: 60_000, unit: inMessages, uses: []server{rabbitMQ}, ours: consumeBarid, theirs: consumeRaw},
		{name: "consume-watermill", target: 2, messages: 60_000, unit: inMessages, uses: []server{rabbitMQ}, ours: consumeBarid, theirs: consumeWatermill},
		{name: "consume-redis", target: 0.8, messages: 60_000, unit: inMessages, uses: []server{rabbitMQ, redisServer}, ours: consumeBaridRedis, theirs: consumeBarid},
		{name: "pipeline-watermill", target: 20, messages: 300_000, unit: inMessages, ours: pipelineBarid, theirs: pipelineWatermill},
		{name: "store-river-pg", target: 1.5, messages: 20_000, unit: inMessages, uses: []server{postgreSQL}, ours: storeBaridPG, theirs: storeRiverPG},
		{name: "store-river-sqlite", target: 4, messages: 10_000, unit: inMessages, ours: storeBaridSQLite, theirs: storeRiverSQLite},
		{name: "scan-scale", target: 0.7, messages: 40_000, unit: "records/s", uses: []server{postgreSQL}, ours: claimOfMany, theirs: claimOfFew},
		{name: "far-broker", target: 1, messages: 60_000, unit: inMessages, uses: []server{rabbitMQ}, ours: farRabbitMQ(publishBarid), theirs: farRabbitMQ(publishRaw)},
		{name: "far-redis", target: 0.7, messages: 60_000, unit: inMessages, uses: []server{rabbitMQ, redisServer}, ours: farRedis(consumeBaridRedis), theirs: consumeBarid},
		{name: "replay", target: 5, messages: 10_000, unit: "letters/s", ours: replayByJob, theirs: replayOneByOne},
	}
}

// using says whether one of the rows uses the server.
func using(rows []row, server server) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return slices.Contains(r.uses, server) })
}
