package main

import (
	"context"
	"time"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// farDistance is how far the server of a far row is, each way.
const farDistance = 2 * time.Millisecond

// farRabbitMQ has a side work with RabbitMQ at a distance.
func farRabbitMQ(work side) side {
	return func(ctx context.Context, where addresses, n int) (time.Duration, error) {
		return farFrom(&where.amqp, func() (time.Duration, error) { return work(ctx, where, n) })
	}
}

// farRedis has a side work with Redis at a distance.
func farRedis(work side) side {
	return func(ctx context.Context, where addresses, n int) (time.Duration, error) {
		return farFrom(&where.redis, func() (time.Duration, error) { return work(ctx, where, n) })
	}
}

// farFrom has an address lead to its server by a way that takes long.
func farFrom(address *string, work func() (time.Duration, error)) (time.Duration, error) {
	relay, err := servers.NewRelay(*address, farDistance)
	if err != nil {
		return 0, err
	}
	defer relay.Close()
	*address = relay.URL()
	return work()
}
