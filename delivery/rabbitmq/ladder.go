package rabbitmq

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// ladderLevels makes the longest delay 2^20-1 s, 12 days.
	ladderLevels = 20
	// maxLadderLevels keeps x-message-ttl within the broker's limit, 2^32-1 ms.
	maxLadderLevels = 22
	// maxShortBytes is the limit of AMQP's short strings: names, routing keys, the
	// keys of headers.
	maxShortBytes = 255
)

// The prefixes of delay ladders. All names of a virtual host share the ladder of their
// kind, in all versions of this package. So its arguments must never change.
const (
	quorumLadder  = "barid."
	classicLadder = "barid.classic."
)

// addLadder adds the delay ladder with a prefix, see Quorum, to a topology that has
// its levels, and binds the end of it to their queues.
func addLadder(t *Topology, name, prefix string) {
	due, unroutable := prefix+"due", prefix+"unroutable"
	t.LostQueue = prefix + "lost"
	// At-least-once dead lettering keeps a message in its queue until another queue
	// has taken it. Without the alternate exchanges, one missing queue would so block
	// a whole level of the ladder, and with it all names.
	t.Exchanges = append(t.Exchanges,
		Exchange{Name: due, Kind: "topic", Arguments: map[string]any{"alternate-exchange": unroutable}},
		Exchange{Name: unroutable, Kind: "topic", Arguments: map[string]any{"alternate-exchange": t.LostQueue}},
		Exchange{Name: t.LostQueue, Kind: "fanout"})
	t.Queues = append(t.Queues, Queue{Name: t.LostQueue, Arguments: map[string]any{"x-queue-type": "quorum"}})
	next := due
	for i := range ladderLevels {
		level := prefix + "delay." + strconv.Itoa(i)
		t.Delays = append(t.Delays, level)
		t.Exchanges = append(t.Exchanges, Exchange{Name: level, Kind: "topic"})
		t.Queues = append(t.Queues, Queue{Name: level, Arguments: map[string]any{
			"x-queue-type":           "quorum",
			"x-message-ttl":          int64(1000) << i,
			"x-dead-letter-exchange": next,
			"x-dead-letter-strategy": "at-least-once",
			"x-overflow":             "reject-publish",
		}})
		// In the routing key the digits of the higher levels come first.
		higher := strings.Repeat("*.", ladderLevels-1-i)
		t.Bindings = append(t.Bindings,
			Binding{Source: level, Key: higher + "1.#", Destination: level},
			Binding{Source: level, Key: higher + "0.#", Destination: next, ToExchange: true})
		next = level
	}
	digits := strings.Repeat("*.", ladderLevels)
	t.Bindings = append(t.Bindings,
		Binding{Source: t.LostQueue, Destination: t.LostQueue},
		Binding{Source: unroutable, Key: digits + ladderWord(name) + ".#", Destination: t.UnroutableQueue})
	for _, level := range t.Levels {
		last := Binding{Source: due, Key: digits + level.Address, Destination: level.Queue}
		if !slices.Contains(t.Bindings, last) {
			t.Bindings = append(t.Bindings, last)
		}
	}
}

// ladderWord is a name as one word of a routing key, which tells it from all other
// names. What has a meaning in the pattern of a binding is percent-encoded.
func ladderWord(name string) string {
	return strings.NewReplacer("%", "%25", ".", "%2E", "*", "%2A", "#", "%23").Replace(name)
}

// ladderKey is the routing key of a delayed message: the binary digits of the
// delay, the highest first, one for each level, and then the address.
func ladderKey(seconds uint64, levels int, address string) string {
	var key strings.Builder
	key.Grow(2*levels + len(address))
	for i := levels - 1; i >= 0; i-- {
		key.WriteByte('0' + byte(seconds>>i&1))
		key.WriteByte('.')
	}
	key.WriteString(address)
	return key.String()
}

// ladderQueues are the queues in which delayed messages wait, those of all names
// that share the ladder.
func (t Topology) ladderQueues() []string {
	var queues []string
	for _, b := range t.Bindings {
		if !b.ToExchange && slices.Contains(t.Delays, b.Source) {
			queues = append(queues, b.Destination)
		}
	}
	return queues
}

// formerLadder are the queues of the delay ladder that the name had before it shared
// one with others, or none if they are gone.
func formerLadder(conn *connection, name string) (queues []string, err error) {
	for i := range ladderLevels {
		queues = append(queues, name+".delay."+strconv.Itoa(i))
	}
	if _, err = conn.messagesIn(queues[0]); isCode(err, amqp.NotFound) {
		return nil, nil
	}
	return queues, err
}

// longestDelay is the longest that the ladder can hold a message.
func (t Topology) longestDelay() time.Duration {
	return time.Duration(uint64(1)<<len(t.Delays)-1) * time.Second
}

// ladderSlack is how much longer than asked the ladder may hold a message. Without
// it, a delay of whole seconds would lose one of them to the few milliseconds that
// have passed by the time it is sent.
const ladderSlack = 20 * time.Millisecond

// delayed is where a message is published that is due after the delay. That is the
// level of the highest digit, with inLadder. When less than a second is left it is
// the message's queue, and the process that fetches it waits until it is due.
func (t Topology) delayed(delay time.Duration, shard *Shard) (route Route, inLadder bool) {
	seconds := min(uint64((delay+ladderSlack)/time.Second), uint64(1)<<len(t.Delays)-1)
	if seconds == 0 {
		return shard.Route, false
	}
	return Route{
		Exchange: t.Delays[bits.Len64(seconds)-1],
		Key:      ladderKey(seconds, len(t.Delays), shard.Address),
	}, true
}
