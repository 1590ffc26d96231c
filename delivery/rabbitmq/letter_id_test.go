package rabbitmq

import (
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/delivery"
)

func TestLetterIDs(t *testing.T) {
	e := valid()
	again, replayed := e, e
	again.Attempt, replayed.Generation = 7, 1
	assert.Equal(t, letterID("q", &e, nil), letterID("q", &again, nil))
	assert.NotEqual(t, letterID("q", &e, nil), letterID("q", &replayed, nil))
	assert.NotEqual(t, letterID("q", &e, nil), letterID("r", &e, nil))
	stamped := func(at int64) string {
		copied := e
		copied.Headers = map[string]string{"timestamp_in_ms": fmt.Sprint(at)}
		return letterID("q", &copied, amqp.Table{"timestamp_in_ms": at})
	}
	assert.Equal(t, stamped(1), stamped(2), "what the broker adds is not the message")
	for name, change := range map[string]func(*delivery.Envelope){
		"recipient": func(e *delivery.Envelope) { e.Recipient = "else" },
		"key":       func(e *delivery.Envelope) { e.IdempotencyKey = "k" },
		"subject":   func(e *delivery.Envelope) { e.Subject = "k" },
		"body":      func(e *delivery.Envelope) { e.Body = []byte("else") },
		"header":    func(e *delivery.Envelope) { e.Headers = map[string]string{"a": "b"} },
		"priority":  func(e *delivery.Envelope) { e.Priority = delivery.Urgent },
		"created":   func(e *delivery.Envelope) { e.CreatedAt = time.Unix(5, 0) },
		"expires":   func(e *delivery.Envelope) { e.ExpiresAt = time.Unix(5, 0) },
		"ack":       func(e *delivery.Envelope) { e.RequireAck = true },
	} {
		other := e
		change(&other)
		assert.NotEqual(t, letterID("q", &e, nil), letterID("q", &other, nil), name)
	}
	later := e
	later.NotBefore, later.History = time.Unix(5, 0), []delivery.Failure{{Attempt: 1}}
	assert.Equal(t, letterID("q", &e, nil), letterID("q", &later, nil), "the same message, later")

	foreign := func(change func(*amqp.Delivery)) string {
		d := amqp.Delivery{Body: []byte("body"), Headers: amqp.Table{
			"a": amqp.Table{"b": []any{int32(1), "c"}, "at": time.Unix(5, 0).UTC()}, "x-death": []any{amqp.Table{"time": time.Unix(9, 0).UTC()}},
		}}
		if change != nil {
			change(&d)
		}
		return foreignID("q", &d)
	}
	for name, change := range map[string]func(*amqp.Delivery){
		"redelivered": func(d *amqp.Delivery) { d.Redelivered, d.DeliveryTag = true, 8 },
		"counted":     func(d *amqp.Delivery) { d.Headers["x-delivery-count"] = int64(3) },
		"another time zone": func(d *amqp.Delivery) {
			d.Headers["a"].(amqp.Table)["at"] = time.Unix(5, 0).In(time.FixedZone("east", 3600))
		},
	} {
		assert.Equal(t, foreign(nil), foreign(change), name)
	}
	seen := map[string]string{foreign(nil): "unchanged"}
	for name, change := range map[string]func(*amqp.Delivery){
		"body":       func(d *amqp.Delivery) { d.Body = []byte("bodY") },
		"id":         func(d *amqp.Delivery) { d.MessageId = "1" },
		"type":       func(d *amqp.Delivery) { d.Type = "1" },
		"timestamp":  func(d *amqp.Delivery) { d.Timestamp = time.Unix(1, 0) },
		"header":     func(d *amqp.Delivery) { d.Headers["new"] = nil },
		"deep":       func(d *amqp.Delivery) { d.Headers["a"].(amqp.Table)["b"] = []any{int32(1), "d"} },
		"wide":       func(d *amqp.Delivery) { d.Headers["a"].(amqp.Table)["b"] = []any{int64(1), "c"} },
		"other time": func(d *amqp.Delivery) { d.Headers["x-death"] = []any{amqp.Table{"time": time.Unix(10, 0)}} },
	} {
		id := foreign(change)
		assert.Empty(t, seen[id], name)
		seen[id] = name
	}
}

// The IDs are stored, so they must not change by accident.
func TestLetterIDsAreStable(t *testing.T) {
	assert.Equal(t, "31769273-8191-5590-af3f-6251467020c8", letterID("orders", &delivery.Envelope{Message: delivery.Message{ID: "1"}, Generation: 2}, nil))
	assert.Equal(t, "742969cb-1d13-5e2a-ae6a-dbdb4d2cdd14", foreignID("orders", &amqp.Delivery{Body: []byte("1"), Headers: amqp.Table{"a": int32(1)}}))
}
