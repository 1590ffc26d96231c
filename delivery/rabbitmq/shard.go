package rabbitmq

import (
	"maps"
	"slices"
	"strconv"
)

// maxShards bounds Config.Shards. A subscription has a channel for each shard of
// each level, and RabbitMQ allows a connection 2047 by default. And each quorum
// queue costs its nodes a log.
const maxShards = 64

// singleActive is the argument of a queue that one consumer at a time gets messages
// of (RabbitMQ: "Single Active Consumer").
const singleActive = "x-single-active-consumer"

// Shard is one of the queues that share a level's messages.
type Shard struct {
	// Route is where its messages are published.
	Route Route
	// Address is the part of a delayed message's routing key that follows the
	// ladder's digits.
	Address string
	// Queue is where its messages are fetched.
	Queue string
}

// ShardOf says which of so many shards, from 0 on, a recipient's messages go to.
// It is the same in every process and every version of this package: the 64-bit
// FNV-1a hash of the recipient's bytes, mixed by the finalizer of MurmurHash3
// (fmix64), modulo shards. With fewer than 2 shards it is 0.
func ShardOf(recipient string, shards int) int {
	if shards < 2 {
		return 0
	}
	const offset, prime = 14695981039346656037, 1099511628211
	hash := uint64(offset)
	for i := range len(recipient) {
		hash = (hash ^ uint64(recipient[i])) * prime
	}
	// The low bits of FNV-1a follow a pattern where recipients are numbered in a row.
	hash = (hash ^ hash>>33) * 0xff51afd7ed558ccd
	hash = (hash ^ hash>>33) * 0xc4ceb9fe1a85ec53
	hash ^= hash >> 33
	return int(hash % uint64(shards))
}

// Sharded returns t with the queue of each level split into n shards, the queues
// <queue>.0, <queue>.1 and so on. It is what Config.Shards does. Each shard takes
// the messages of its recipients, see ShardOf. It has a single active consumer
// (x-single-active-consumer): the broker delivers to one consumer only, and to
// another when that one is gone. So one process at a time has a recipient's messages
// of one priority, and has them in order.
//
// Routing keys and addresses get the shard's number as one more word, and so do the
// keys of the bindings to these queues. Levels that have shards already are left as
// they are. An n below 2 changes nothing.
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

// shard is one of the queues that q is split into.
func (q Queue) shard(number int) Queue {
	arguments := maps.Clone(q.Arguments)
	if arguments == nil {
		arguments = make(map[string]any)
	}
	arguments[singleActive] = true
	return Queue{Name: numbered(q.Name, number), Arguments: arguments}
}

func numbered(text string, number int) string { return text + "." + strconv.Itoa(number) }

// shardOf is the shard of a recipient, of a level that has shards.
func (l *Level) shardOf(recipient string) *Shard {
	return &l.Shards[ShardOf(recipient, len(l.Shards))]
}

// shards are the level's shards, or its one queue as a shard.
func (l *Level) shards() []Shard {
	if len(l.Shards) > 0 {
		return l.Shards
	}
	return []Shard{{Route: l.Route, Address: l.Address, Queue: l.Queue}}
}
