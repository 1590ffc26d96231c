package rabbitmq

import (
	"errors"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// source is a queue to fetch from.
type source struct {
	queue  string
	label  string  // begins its consumers' tags
	levels []Level // whose messages wait there, the highest first
	// share says among how many queues of the same level the prefetch is divided.
	share int
	// leftover: it does not belong to the topology and may be deleted by anyone.
	leftover bool
}

// sources are the queues of all levels.
func (t Topology) sources() []source {
	var sources []source
	for _, priority := range delivery.Priorities() {
		for _, level := range t.Levels {
			if level.Priority != priority {
				continue
			}
			shards := level.shards()
			for _, shard := range shards {
				known := slices.IndexFunc(sources, func(s source) bool { return s.queue == shard.Queue })
				if known < 0 {
					sources = append(sources, source{queue: shard.Queue, label: shard.Address, levels: []Level{level}, share: len(shards)})
				} else {
					sources[known].levels = append(sources[known].levels, level)
				}
			}
		}
	}
	return sources
}

// lowest is the priority that the source's messages count for where nobody can
// tell them apart.
func (s *source) lowest() delivery.Priority { return s.levels[len(s.levels)-1].Priority }

// prefetch is the source's part of what a level may have in hand.
func (s *source) prefetch(level int) int { return max(1, level/max(1, s.share)) }

// priorityOf tells the level of a delivery: by its queue, or by our header, or
// for what is not ours by its AMQP priority.
func (s *source) priorityOf(d *amqp.Delivery) delivery.Priority {
	if len(s.levels) == 0 {
		return delivery.Normal
	}
	if len(s.levels) == 1 {
		return s.levels[0].Priority
	}
	number, found := integer(d.Headers[headerPriority])
	if !found {
		_, found = d.Headers[headerRecipient] // ours, and 0, which is left out
	}
	if found {
		for i := range s.levels {
			if int64(s.levels[i].Priority) == number {
				return s.levels[i].Priority
			}
		}
	}
	for i := range s.levels {
		if d.Priority >= s.levels[i].MessagePriority {
			return s.levels[i].Priority
		}
	}
	return s.lowest()
}

// leftovers finds the queues that another number of shards has left behind, so
// that what waits there is fetched. plain is the topology before it was split
// into n. A queue counts only if it has the very arguments that it would have
// been declared with.
func leftovers(link *link, plain Topology, n int) ([]source, error) {
	var found []source
	for _, s := range plain.sources() {
		if len(s.levels[0].Shards) > 0 {
			continue // the host's own split
		}
		at := slices.IndexFunc(plain.Queues, func(q Queue) bool { return q.Name == s.queue })
		if at < 0 {
			continue
		}
		queue, first := plain.Queues[at], n
		candidates := []Queue{queue}
		if n < 2 {
			candidates, first = nil, 0
		}
		for number := first; number < MaxShards; number++ {
			candidates = append(candidates, queue.shard(number))
		}
		for i, candidate := range candidates {
			exists, err := candidate.leftBehind(link)
			if err != nil {
				return nil, err
			}
			if exists {
				found = append(found, source{queue: candidate.Name, label: "leftover", levels: s.levels, leftover: true})
			} else if i > 0 || n < 2 {
				break // shards are numbered without a gap
			}
		}
	}
	return found, nil
}

// leftBehind says whether the queue exists, with its arguments. An error is that
// of the connection.
func (q Queue) leftBehind(link *link) (bool, error) {
	_, err := messagesIn(link, q.Name)
	if err == nil {
		err = q.declare(link)
	}
	var reply *amqp.Error
	if errors.As(err, &reply) && reply.Server && !link.conn.IsClosed() {
		return false, nil
	}
	return err == nil, err
}
