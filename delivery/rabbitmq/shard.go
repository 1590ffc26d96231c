package rabbitmq

import (
	"maps"
	"slices"
	"strconv"
)

// MaxShards bounds Config.Shards. A Subscription has a channel for each shard of
// each level, of which RabbitMQ allows a connection 2047 by default, and a
// quorum queue costs its node a log.
const MaxShards = 64

// Shard is one of the queues that share a level's messages.
type Shard struct {
	// Route is where messages are published that belong here.
	Route Route
	// Address is what follows the ladder's digits in the routing key of a
	// delayed message.
	Address string
	// Queue is where they are fetched.
	Queue string
}

// ShardOf says which of so many shards a recipient's messages go to, from 0 on.
// It is the same in every process and every version of this package: the 64-bit
// FNV-1a hash of the recipient's bytes, mixed by the finalizer of MurmurHash3
// (fmix64), modulo shards. With less than 2 shards it is 0.
func ShardOf(recipient string, shards int) int {
	if shards < 2 {
		return 0
	}
	const offset, prime = 14695981039346656037, 1099511628211
	hash := uint64(offset)
	for i := range len(recipient) {
		hash = (hash ^ uint64(recipient[i])) * prime
	}
	// FNV leaves the low bits of numbers that follow each other in a pattern.
	hash = (hash ^ hash>>33) * 0xff51afd7ed558ccd
	hash = (hash ^ hash>>33) * 0xc4ceb9fe1a85ec53
	hash ^= hash >> 33
	return int(hash % uint64(shards))
}

// Sharded is t with the queue of each level split into n, from <queue>.0 on,
// as Config.Shards does it. Each takes the messages of its recipients, see
// ShardOf, and has a single active consumer (x-single-active-consumer): the
// broker delivers from it to one consumer only, and goes over to another when
// that one is gone. So a recipient's messages of one priority are in one
// process's hands at a time, in order.
//
// Routing keys and addresses get the shard's number as one more word, and so do
// the keys of the bindings to these queues. Levels that have shards already are
// left as they are; n below 2 changes nothing.
func (t Topology) Sharded(n int) Topology {
	if n < 2 {
		return t
	}
	split := make(map[string]bool)
	t.Levels = slices.Clone(t.Levels)
	for i := range t.Levels {
		level := &t.Levels[i]
		if len(level.Shards) > 0 {
			continue
		}
		split[level.Queue] = true
		for number := range n {
			level.Shards = append(level.Shards, Shard{
				Route:   Route{Exchange: level.Route.Exchange, Key: numbered(level.Route.Key, number)},
				Address: numbered(level.Address, number),
				Queue:   numbered(level.Queue, number),
			})
		}
	}
	queues := make([]Queue, 0, len(t.Queues)+n*len(split))
	for _, q := range t.Queues {
		if !split[q.Name] {
			queues = append(queues, q)
			continue
		}
		for number := range n {
			queues = append(queues, q.shard(number))
		}
	}
	bindings := make([]Binding, 0, len(t.Bindings)+2*n*len(split))
	for _, b := range t.Bindings {
		if b.ToExchange || !split[b.Destination] {
			bindings = append(bindings, b)
			continue
		}
		for number := range n {
			bindings = append(bindings, Binding{
				Source: b.Source, Key: numbered(b.Key, number), Destination: numbered(b.Destination, number),
			})
		}
	}
	t.Queues, t.Bindings = queues, bindings
	return t
}

// shard is one of the queues that take the place of q.
func (q Queue) shard(number int) Queue {
	arguments := maps.Clone(q.Arguments)
	if arguments == nil {
		arguments = make(map[string]any)
	}
	arguments["x-single-active-consumer"] = true
	return Queue{Name: numbered(q.Name, number), Arguments: arguments}
}

func numbered(text string, number int) string { return text + "." + strconv.Itoa(number) }

// shardOf is where a recipient's messages go, of a level that has shards.
func (l *Level) shardOf(recipient string) *Shard {
	return &l.Shards[ShardOf(recipient, len(l.Shards))]
}

// shards are the level's queues, also when there is only one.
func (l *Level) shards() []Shard {
	if len(l.Shards) > 0 {
		return l.Shards
	}
	return []Shard{{Route: l.Route, Address: l.Address, Queue: l.Queue}}
}
