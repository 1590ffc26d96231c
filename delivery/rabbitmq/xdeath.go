package rabbitmq

import (
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The names of the Facts of a message that the broker dead-lettered. Their values
// are what the broker writes into the header x-death (RabbitMQ: "Dead Letter
// Exchanges"). Of a delayed message that found no queue, the reason is unroutable,
// and the exchange and routing keys are those that led nowhere.
const (
	FactReason      = "reason"       // rejected, expired, maxlen, delivery_limit; or unroutable
	FactQueue       = "queue"        // the queue that it was dead-lettered from
	FactCount       = "count"        // how often from that queue, for that reason
	FactTime        = "time"         // when for the first time: RFC 3339, UTC, whole seconds
	FactExchange    = "exchange"     // the exchange that it had been published to
	FactRoutingKeys = "routing-keys" // its routing keys, separated by commas
)

// maxFactBytes bounds the value of one fact.
const maxFactBytes = 1024

// xdeath is what the header x-death says about the last time that the broker
// dead-lettered a message.
type xdeath struct {
	facts map[string]string // nil when the header says nothing
	at    time.Time
}

// parseXDeath reads the header, a list with the latest entry first. A publisher
// can have put anything there, so values of another type are left out.
func parseXDeath(headers amqp.Table) xdeath {
	list, _ := headers["x-death"].([]any)
	if len(list) == 0 {
		return xdeath{}
	}
	table, _ := list[0].(amqp.Table)
	x := xdeath{facts: make(map[string]string)}
	put := func(name, value string) {
		if value != "" {
			x.facts[name] = cut(value, maxFactBytes)
		}
	}
	text := func(value any) string {
		text, _ := value.(string)
		return text
	}
	put(FactReason, text(table["reason"]))
	put(FactQueue, text(table["queue"]))
	put(FactExchange, text(table["exchange"]))
	if count, ok := integer(table["count"]); ok {
		put(FactCount, strconv.FormatInt(count, 10))
	}
	if at, ok := table["time"].(time.Time); ok && validTime(at) {
		x.at = at.UTC()
		put(FactTime, x.at.Format(time.RFC3339))
	}
	var keys []string
	all, _ := table["routing-keys"].([]any)
	for _, key := range all {
		keys = append(keys, text(key))
	}
	put(FactRoutingKeys, strings.Join(keys, ","))
	return x
}

// noQueue is the xdeath of a delayed message that found no queue when it was due.
func noQueue(d *amqp.Delivery) xdeath {
	x := xdeath{at: parseXDeath(d.Headers).at, facts: map[string]string{
		FactReason: "unroutable", FactExchange: d.Exchange, FactRoutingKeys: d.RoutingKey,
	}}
	if !x.at.IsZero() {
		x.facts[FactTime] = x.at.Format(time.RFC3339)
	}
	return x
}

// String is the text of the dead letter's Error.
func (x *xdeath) String() string {
	if reason := x.facts[FactReason]; reason != "" {
		return "rabbitmq: dead-lettered by the broker: " + reason
	}
	return "rabbitmq: dead-lettered, and the broker does not say why"
}
