package rabbitmq

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// oneQueue is Quorum with all priorities in one queue, as quorum queues order them
// from 4.3 on.
func oneQueue(name string, server Version) Topology {
	t := Quorum(name, server)
	others := []string{name + ".urgent", name + ".high", name + ".low"}
	t.Queues = slices.DeleteFunc(t.Queues, func(q Queue) bool { return slices.Contains(others, q.Name) })
	t.Bindings = slices.DeleteFunc(t.Bindings, func(b Binding) bool { return slices.Contains(others, b.Destination) })
	for i := range t.Levels {
		level := &t.Levels[i]
		level.MessagePriority = uint8(level.Priority-delivery.Low) + 5
		level.DelayedPriority = level.MessagePriority
		level.Route.Key, level.Address, level.Queue = "normal", "normal", name+".normal"
	}
	return t
}

// BenchmarkPriorities compares a queue for each priority, ours, with one queue for
// all, on a broker of 4.3 or later. By turns, both publish messages of all priorities
// and consume them, 10,000 at a time. VERSIONS.md says what came of it.
func BenchmarkPriorities(b *testing.B) {
	const portion = 10_000
	topologies := map[string]func(string, Version) Topology{"four": Quorum, "one": oneQueue}
	url := shared.AMQP(b)
	publishing, consuming, memory := map[string]time.Duration{}, map[string]time.Duration{}, map[string]int64{}
	total := 0
	for total < b.N {
		total += portion
		for name, topology := range topologies {
			transport := open(b, Config{URL: url, Name: servers.Unique(b), Topology: topology})
			before := queueMemory(b, transport)
			begin := time.Now()
			callers(portion, func(share int) {
				batch := make([]delivery.Envelope, share)
				for i := range batch {
					batch[i].Message = delivery.Message{
						ID: delivery.NewID(), Recipient: "r", Body: make([]byte, 1024), Priority: delivery.Priorities()[i%4],
					}
				}
				if errs := transport.Send(context.Background(), batch); errs != nil {
					b.Error(errors.Join(errs...))
				}
			})
			publishing[name] += time.Since(begin)
			memory[name] += queueMemory(b, transport) - before
			begin = time.Now()
			consume(b, transport, portion)
			consuming[name] += time.Since(begin)
			require.NoError(b, transport.Close())
		}
	}
	for name := range topologies {
		b.ReportMetric(float64(total)/publishing[name].Seconds(), name+"-published/s")
		b.ReportMetric(float64(total)/consuming[name].Seconds(), name+"-consumed/s")
		b.ReportMetric(float64(memory[name])/float64(total), name+"-bytes/message")
		b.ReportMetric(float64(urgentBeforeLow(b, topologies[name])), name+"-urgent-before-low")
	}
}

// consume receives and acks n messages.
func consume(b *testing.B, transport *Transport, n int) {
	subscription, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{Prefetch: 256})
	require.NoError(b, err)
	for n > 0 {
		incomings, err := subscription.Receive(context.Background())
		require.NoError(b, err)
		for _, in := range incomings {
			require.NoError(b, in.Ack())
		}
		n -= len(incomings)
	}
	require.NoError(b, subscription.Close())
}

// queueMemory is what the broker says of the memory of the work queues, in bytes.
func queueMemory(b *testing.B, transport *Transport) (sum int64) {
	out, err := shared.RabbitMQ(b).Ctl(context.Background(), "list_queues", "name", "memory")
	require.NoError(b, err)
	queues := map[string]int64{}
	for line := range strings.Lines(out) {
		name, bytes, _ := strings.Cut(strings.TrimSpace(line), "\t")
		queues[name], _ = strconv.ParseInt(bytes, 10, 64) // the first line is a header
	}
	for _, queue := range transport.Topology().Queues {
		if !strings.Contains(queue.Name, ".delay.") {
			sum += queues[queue.Name]
		}
	}
	return sum
}

// urgentBeforeLow is how many of 5000 urgent messages a consumer handles before a low
// one that has waited for longer.
func urgentBeforeLow(b *testing.B, topology func(string, Version) Topology) int {
	const urgent = 5000
	transport := open(b, Config{URL: shared.AMQP(b), Name: servers.Unique(b), Topology: topology})
	batch := make([]delivery.Envelope, 1+urgent)
	for i := range batch {
		batch[i].Message = delivery.Message{ID: strconv.Itoa(i), Recipient: "r", Priority: delivery.Urgent}
	}
	batch[0].Priority = delivery.Low
	require.Nil(b, transport.Send(context.Background(), batch))
	handled := 0
	ctx, cancel := context.WithCancel(context.Background())
	consumer, err := delivery.NewConsumer(transport, func(_ context.Context, m delivery.Message) error {
		if m.Priority == delivery.Low {
			cancel()
		} else if ctx.Err() == nil {
			handled++
		}
		return nil
	}, delivery.ConsumerConfig{Concurrency: 1, Prefetch: 64, StarvationLimit: 100})
	require.NoError(b, err)
	require.NoError(b, consumer.Run(ctx))
	return handled
}
