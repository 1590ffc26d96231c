package rabbitmq

import (
	"crypto/sha1"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// The facts of a letter that the broker dead-lettered, as it tells them in the
// header x-death ("Dead Letter Exchanges").
const (
	FactReason      = "reason"       // rejected, expired, maxlen or delivery_limit
	FactQueue       = "queue"        // where it died
	FactCount       = "count"        // how often there, for that reason
	FactTime        = "time"         // when, the first time there: RFC 3339, UTC, whole seconds
	FactExchange    = "exchange"     // where it was published
	FactRoutingKeys = "routing-keys" // with which keys, separated by commas
)

// maxFactBytes bounds one fact.
const maxFactBytes = 1024

// death is what the broker tells about the last time that it dead-lettered a
// message.
type death struct {
	facts map[string]string // nil when it tells nothing
	at    time.Time
}

// deathOf reads x-death, a list with the latest death first. Who publishes may
// have put anything there: what has another type is left out.
func deathOf(headers amqp.Table) death {
	list, _ := headers["x-death"].([]any)
	if len(list) == 0 {
		return death{}
	}
	table, _ := list[0].(amqp.Table)
	d := death{facts: make(map[string]string)}
	put := func(name, value string) {
		if value != "" {
			d.facts[name] = cut(value, maxFactBytes)
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
		d.at = at.UTC()
		put(FactTime, d.at.Format(time.RFC3339))
	}
	var keys []string
	all, _ := table["routing-keys"].([]any)
	for _, key := range all {
		keys = append(keys, text(key))
	}
	put(FactRoutingKeys, strings.Join(keys, ","))
	return d
}

func (d *death) String() string {
	if reason := d.facts[FactReason]; reason != "" {
		return "rabbitmq: dead-lettered by the broker: " + reason
	}
	return "rabbitmq: dead-lettered, and the broker does not say why"
}

// letterSpace makes the IDs here differ from UUIDs made by others.
var letterSpace = uuid.MustParse("0a1f2e0e-8f0d-4a6b-9a53-6f5b8f0f3c11")

// letterID is the ID of the letter of a message of ours: that of each copy of it,
// in one generation.
func letterID(name string, e *delivery.Envelope) string {
	return uuid.NewSHA1(letterSpace, []byte("m"+name+"\x00"+e.ID+"\x00"+strconv.Itoa(e.Generation))).String()
}

// foreignID is the ID of the letter of a message that is not ours: made of all
// that it consists of and of its death, but of nothing that a redelivery
// changes.
func foreignID(name string, d *amqp.Delivery) string {
	digest := sha1.New() //nolint:gosec // names things, guards nothing
	for _, text := range []string{
		name, string(d.Body), d.MessageId, d.CorrelationId, d.Type, d.ContentType, d.ContentEncoding,
		d.ReplyTo, d.AppId, d.UserId, d.Expiration,
	} {
		digest.Write(appendString(nil, text))
	}
	add(digest, d.Timestamp)
	for _, key := range slices.Sorted(maps.Keys(d.Headers)) {
		if key == "x-death" || !hasPrefixFold(key, "x-") { // x-delivery-count, for one, grows
			digest.Write(appendString(nil, key))
			add(digest, d.Headers[key])
		}
	}
	return uuid.NewSHA1(letterSpace, append([]byte("f"), digest.Sum(nil)...)).String()
}

// add adds a header's value to a digest, in the same way in every process.
func add(digest hash.Hash, value any) {
	switch value := value.(type) {
	case time.Time:
		fmt.Fprintf(digest, "t%d", value.Unix()) // whatever the time zone
	case []any:
		fmt.Fprintf(digest, "l%d", len(value))
		for _, item := range value {
			add(digest, item)
		}
	case amqp.Table:
		fmt.Fprintf(digest, "m%d", len(value))
		for _, key := range slices.Sorted(maps.Keys(value)) {
			digest.Write(appendString(nil, key))
			add(digest, value[key])
		}
	default:
		digest.Write(appendString(nil, fmt.Sprintf("%T %v", value, value)))
	}
}
