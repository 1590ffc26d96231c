package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery/rabbitmq"
)

// What Open would declare can be looked at without a broker, for instance to
// declare it by other means.
func ExampleQuorum() {
	topology := rabbitmq.Quorum("orders", rabbitmq.Version{Major: 3, Minor: 13})
	for _, level := range topology.Levels {
		fmt.Println(level.Priority, "->", level.Queue)
	}
	// Output:
	// urgent -> orders.urgent
	// high -> orders.high
	// normal -> orders.normal
	// low -> orders.low
}

// A Topology of your own is Quorum's with changes, here a bound on each work
// queue: a full one refuses messages.
func ExampleConfig_topology() {
	config := rabbitmq.Config{Topology: func(name string, server rabbitmq.Version) rabbitmq.Topology {
		topology := rabbitmq.Quorum(name, server)
		for _, level := range topology.Levels {
			for _, queue := range topology.Queues {
				if queue.Name == level.Queue {
					queue.Arguments["x-max-length"] = int64(100_000)
					queue.Arguments["x-overflow"] = "reject-publish"
				}
			}
		}
		return topology
	}}
	fmt.Println(config.Topology("orders", rabbitmq.Version{}).Queues[2])
	// Output:
	// {orders.urgent map[x-dead-letter-exchange:orders.dlx x-dead-letter-routing-key:failed x-max-length:100000 x-overflow:reject-publish x-queue-type:quorum]}
}

// The preset with message priorities: two levels share a queue.
func ExampleClassic() {
	topology := rabbitmq.Classic("orders", rabbitmq.Version{Major: 3, Minor: 10})
	for _, level := range topology.Levels {
		fmt.Println(level.Priority, "->", level.Queue, "at", level.MessagePriority)
	}
	// Output:
	// urgent -> orders.high at 10
	// high -> orders.high at 5
	// normal -> orders.normal at 5
	// low -> orders.low at 1
}

// What Config.Shards declares can be looked at as well.
func ExampleTopology_Sharded() {
	topology := rabbitmq.Quorum("orders", rabbitmq.Version{}).Sharded(4)
	recipient := "+966500000001"
	for _, level := range topology.Levels {
		shard := level.Shards[rabbitmq.ShardOf(recipient, len(level.Shards))]
		fmt.Println(level.Priority, "->", shard.Queue)
	}
	// Output:
	// urgent -> orders.urgent.3
	// high -> orders.high.3
	// normal -> orders.normal.3
	// low -> orders.low.3
}

// A broker that is not there is tried again until the context ends.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := rabbitmq.Open(ctx, rabbitmq.Config{URL: "amqp://guest:secret@127.0.0.1:1/", Name: "orders"})
	var fault *rabbitmq.ConnectError
	if errors.As(err, &fault) {
		fmt.Println(fault.Address, fault.Permanent, errors.Is(err, context.DeadlineExceeded))
	}
	// Output: 127.0.0.1:1 false true
}
