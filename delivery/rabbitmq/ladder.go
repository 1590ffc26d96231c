package rabbitmq

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// ladderLevels makes the longest delay 2^20-1 s, 12 days.
	ladderLevels = 20
	// maxLadderLevels keeps a level's time to live within the broker's limit of
	// 2^32-1 ms.
	maxLadderLevels = 22
	// maxShortBytes bounds AMQP's short strings: names, keys, routing keys.
	maxShortBytes = 255
)

// addLadder adds the delay ladder to a topology that has its levels.
func addLadder(t *Topology, name string) {
	due := name + ".due"
	// One work queue that is missing would otherwise block a whole level: what
	// is dead-lettered at least once stays in its queue until it is taken.
	t.Exchanges = append(t.Exchanges, Exchange{Name: due, Kind: "topic", Arguments: map[string]any{"alternate-exchange": unroutable(name)}})
	for i := range ladderLevels {
		t.Delays = append(t.Delays, name+".delay."+strconv.Itoa(i))
		t.Exchanges = append(t.Exchanges, Exchange{Name: t.Delays[i], Kind: "topic"})
	}
	next := due
	for i, level := range t.Delays {
		t.Queues = append(t.Queues, Queue{Name: level, Arguments: map[string]any{
			"x-queue-type":           "quorum",
			"x-message-ttl":          int64(1000) << i,
			"x-dead-letter-exchange": next,
			"x-dead-letter-strategy": "at-least-once",
			"x-overflow":             "reject-publish",
		}})
		// This level's digit has those of the higher levels in front of it.
		higher := strings.Repeat("*.", ladderLevels-1-i)
		t.Bindings = append(t.Bindings,
			Binding{Source: level, Key: higher + "1.#", Destination: level},
			Binding{Source: level, Key: higher + "0.#", Destination: next, ToExchange: true})
		next = level
	}
	for _, level := range t.Levels {
		home := Binding{Source: due, Key: strings.Repeat("*.", ladderLevels) + level.Address, Destination: level.Queue}
		if !slices.Contains(t.Bindings, home) {
			t.Bindings = append(t.Bindings, home)
		}
	}
}

// ladderKey is the routing key of a delay: its binary digits, the highest
// first, one for each level, and the address.
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

// longest is the ladder's limit.
func (t Topology) longest() time.Duration {
	return time.Duration(uint64(1)<<len(t.Delays)-1) * time.Second
}

// slack is how much too long the ladder may hold a message, so that a delay of
// whole seconds passes there altogether although some of it is over by the time
// it is sent.
const slack = 20 * time.Millisecond

// delayed is where a message goes that is due in the given time: to the level
// of the highest digit, or at once to its queue when only a fraction of a second
// is left, which the receiving side waits for. inLadder says which.
func (t Topology) delayed(delay time.Duration, shard *Shard) (route Route, inLadder bool) {
	seconds := min(uint64((delay+slack)/time.Second), uint64(1)<<len(t.Delays)-1)
	if seconds == 0 {
		return shard.Route, false
	}
	return Route{
		Exchange: t.Delays[bits.Len64(seconds)-1],
		Key:      ladderKey(seconds, len(t.Delays), shard.Address),
	}, true
}
