package rabbitmq

import (
	"log/slog"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// source is a queue that messages are fetched from.
type source struct {
	queue  string
	label  string  // the beginning of its consumers' tags
	levels []Level // whose messages wait there, the highest first
	// share is among how many queues of the same level the prefetch is divided.
	share int
	// single says that the queue has a single active consumer.
	single bool
	// leftover says that the queue is not in the topology, so that it may be missing,
	// and an administrator may delete it at any time.
	leftover bool
}

// sources are the queues of all levels, the highest priority first.
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
					sources = append(sources, source{
						queue: shard.Queue, label: shard.Address, levels: []Level{level}, share: len(shards), single: t.single(shard.Queue),
					})
				} else {
					sources[known].levels = append(sources[known].levels, level)
				}
			}
		}
	}
	return sources
}

// single says whether a queue has a single active consumer.
func (t Topology) single(queue string) bool {
	return slices.ContainsFunc(t.Queues, func(q Queue) bool { return q.Name == queue && q.Arguments[singleActive] == true })
}

// lowest is the priority that the source's messages count for where theirs is not
// known.
func (s *source) lowest() delivery.Priority { return s.levels[len(s.levels)-1].Priority }

// sameLevel says whether messages of the same level wait in both.
func (s *source) sameLevel(other *source) bool {
	return len(s.levels) > 0 && len(other.levels) > 0 && s.levels[0].Priority == other.levels[0].Priority
}

// prefetch is the source's share of a level's prefetch. It is at least 2 if the
// level's is, because a consumer leaves half of it to what can run.
func (s *source) prefetch(level int) int { return max(min(level, 2), level/max(1, s.share)) }

// priorityOf is the priority of a delivery. Where levels share the queue, it is
// read from our header, or from the AMQP priority of what is no message of ours.
func (s *source) priorityOf(d *amqp.Delivery) delivery.Priority {
	if len(s.levels) == 0 {
		return delivery.Normal
	}
	if len(s.levels) == 1 {
		return s.levels[0].Priority
	}
	number, found := integer(d.Headers[headerPriority])
	if !found {
		_, found = d.Headers[headerRecipient] // a message of ours leaves priority 0 out
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
// that what waits there is fetched. unsplit is the topology before it was split
// into n shards.
//
// Shards are numbered without a gap. So it looks for the first number that is not
// in use, then for the next two, the next four and so on, until it finds none.
func leftovers(conn *connection, unsplit Topology, n int, logger *slog.Logger) ([]source, error) {
	var candidates []leftover
	for _, s := range unsplit.sources() {
		at := slices.IndexFunc(unsplit.Queues, func(q Queue) bool { return q.Name == s.queue })
		if at >= 0 && len(s.levels[0].Shards) == 0 { // the host has not split it in its own way
			candidates = append(candidates, leftover{queue: unsplit.Queues[at], levels: s.levels})
		}
	}
	var found []source
	first := 0
	if n >= 2 {
		var err error
		if found, err = existing(conn, candidates, logger); err != nil {
			return nil, err
		}
		first = n
	}
	for size := 1; first < maxShards; size *= 2 {
		var shards []leftover
		for number := first; number < min(first+size, maxShards); number++ {
			for _, c := range candidates {
				shards = append(shards, leftover{queue: c.queue.shard(number), levels: c.levels})
			}
		}
		more, err := existing(conn, shards, logger)
		if len(more) == 0 || err != nil {
			return found, err
		}
		found = append(found, more...)
		first += size
	}
	return found, nil
}

// leftover is a queue that may have been left behind.
type leftover struct {
	queue  Queue
	levels []Level // whose messages wait there
}

// existing are the sources of those that exist, and logs them. One with other
// arguments than it would have been declared with may be somebody else's, so it is only
// logged.
func existing(conn *connection, candidates []leftover, logger *slog.Logger) (found []source, err error) {
	waiting := make([]int, len(candidates))
	missing := inParallel(conn.width(), len(candidates), func(i int) (err error) {
		waiting[i], err = conn.messagesIn(candidates[i].queue.Name)
		return err
	})
	different := inParallel(conn.width(), len(candidates), func(i int) error {
		if missing[i] == nil {
			return conn.make(candidates[i].queue.request(false))
		}
		return nil
	})
	if conn.amqp.IsClosed() {
		<-conn.gone
		return nil, conn.cause
	}
	for i, c := range candidates {
		switch {
		case missing[i] != nil:
		case different[i] == nil:
			found = append(found, source{
				queue: c.queue.Name, label: "leftover", levels: c.levels, leftover: true,
				single: c.queue.Arguments[singleActive] == true,
			})
			logger.Warn("leftover queue found", "queue", c.queue.Name, "messages", waiting[i])
		default:
			logger.Error("leftover queue found", "queue", c.queue.Name, "messages", waiting[i], "error", different[i])
		}
	}
	return found, nil
}
