package rabbitmq

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// letterNamespace keeps the IDs of dead letters apart from UUIDs that are made
// elsewhere. It must not change, because these IDs are stored.
var letterNamespace = uuid.MustParse("0a1f2e0e-8f0d-4a6b-9a53-6f5b8f0f3c11")

// letterID is the ID of the dead letter of a message of ours. All copies of the
// message in one generation have the same, so that they are one dead letter. It is
// made of all that copies have in common, because whoever can publish can choose a
// message's ID: what only says that it is the same message is another dead letter.
//
// received are the headers as they were received. Those of the message are strings;
// others were added on the way, and may differ from copy to copy.
func letterID(name string, e *delivery.Envelope, received amqp.Table) string {
	digest := sha256.New()
	for _, text := range []string{
		name, e.ID, strconv.Itoa(e.Generation), e.IdempotencyKey, e.Recipient, e.Subject, e.Type, e.ContentType,
		string(e.Body), e.Priority.String(), strconv.FormatBool(e.RequireAck),
	} {
		digest.Write(appendString(nil, text))
	}
	for _, at := range []time.Time{e.CreatedAt, e.ExpiresAt} {
		digest.Write(appendString(nil, at.UTC().Format(time.RFC3339Nano)))
	}
	for _, key := range slices.Sorted(maps.Keys(e.Headers)) {
		if _, own := received[key].(string); !own && received[key] != nil {
			continue
		}
		digest.Write(appendString(appendString(nil, key), e.Headers[key]))
	}
	return uuid.NewSHA1(letterNamespace, append([]byte("m"), digest.Sum(nil)...)).String()
}

// foreignID is the ID of the dead letter of a message that is not ours. It is
// made of all that the message consists of and of its x-death, but of nothing
// that a redelivery changes.
func foreignID(name string, d *amqp.Delivery) string {
	digest := sha1.New() //nolint:gosec // names things, guards nothing
	for _, text := range []string{
		name, string(d.Body), d.MessageId, d.CorrelationId, d.Type, d.ContentType, d.ContentEncoding,
		d.ReplyTo, d.AppId, d.UserId, d.Expiration,
	} {
		digest.Write(appendString(nil, text))
	}
	addValue(digest, d.Timestamp)
	for _, key := range slices.Sorted(maps.Keys(d.Headers)) {
		if key == "x-death" || !hasPrefixFold(key, "x-") { // x-delivery-count, for one, grows
			digest.Write(appendString(nil, key))
			addValue(digest, d.Headers[key])
		}
	}
	return uuid.NewSHA1(letterNamespace, append([]byte("f"), digest.Sum(nil)...)).String()
}

// addValue adds a header's value to a digest, in the same way in every process.
func addValue(digest hash.Hash, value any) {
	switch value := value.(type) {
	case time.Time:
		fmt.Fprintf(digest, "t%d", value.Unix()) // whatever the time zone
	case []any:
		fmt.Fprintf(digest, "l%d", len(value))
		for _, item := range value {
			addValue(digest, item)
		}
	case amqp.Table:
		fmt.Fprintf(digest, "m%d", len(value))
		for _, key := range slices.Sorted(maps.Keys(value)) {
			digest.Write(appendString(nil, key))
			addValue(digest, value[key])
		}
	default:
		digest.Write(appendString(nil, fmt.Sprintf("%T %v", value, value)))
	}
}
