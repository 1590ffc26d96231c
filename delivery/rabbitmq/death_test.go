package rabbitmq

import (
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestDeathOf(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	latest := amqp.Table{
		"reason": "rejected", "queue": "q.normal", "count": int64(3), "time": at.In(time.FixedZone("east", 3600)),
		"exchange": "q", "routing-keys": []any{"normal", "copy"},
	}
	d := deathOf(amqp.Table{"x-death": []any{latest, amqp.Table{"reason": "expired", "queue": "q.delay.3"}}})
	assert.Equal(t, map[string]string{
		FactReason: "rejected", FactQueue: "q.normal", FactCount: "3", FactTime: "2023-11-14T22:13:20Z",
		FactExchange: "q", FactRoutingKeys: "normal,copy",
	}, d.facts)
	assert.True(t, at.Equal(d.at))
	assert.Equal(t, "rabbitmq: dead-lettered by the broker: rejected", d.String())

	for name, headers := range map[string]amqp.Table{
		"none":        nil,
		"no list":     {"x-death": "rejected"},
		"empty":       {"x-death": []any{}},
		"no table":    {"x-death": []any{"rejected"}},
		"wrong types": {"x-death": []any{amqp.Table{"reason": int64(1), "queue": nil, "count": "3", "time": "now", "exchange": []any{}, "routing-keys": "normal"}}},
		"mad time":    {"x-death": []any{amqp.Table{"time": time.Unix(1<<62, 0)}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := deathOf(headers)
			assert.Empty(t, d.facts)
			assert.Zero(t, d.at)
			assert.Contains(t, d.String(), "does not say why")
		})
	}
	long := deathOf(amqp.Table{"x-death": []any{amqp.Table{"queue": strings.Repeat("ä", 10_000), "routing-keys": []any{int64(1), strings.Repeat("k", 2000)}}}})
	assert.Len(t, long.facts[FactQueue], maxFactBytes)
	assert.Len(t, long.facts[FactRoutingKeys], maxFactBytes)
}

func TestLetterIDs(t *testing.T) {
	e := valid()
	again, replayed := e, e
	again.Attempt, replayed.Generation = 7, 1
	assert.Equal(t, letterID("q", &e), letterID("q", &again))
	assert.NotEqual(t, letterID("q", &e), letterID("q", &replayed))
	assert.NotEqual(t, letterID("q", &e), letterID("r", &e))

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
	assert.Equal(t, "96269403-aad7-5e06-afa1-4f3675ddf96f", letterID("orders", &delivery.Envelope{Message: delivery.Message{ID: "1"}, Generation: 2}))
	assert.Equal(t, "742969cb-1d13-5e2a-ae6a-dbdb4d2cdd14", foreignID("orders", &amqp.Delivery{Body: []byte("1"), Headers: amqp.Table{"a": int32(1)}}))
}

func FuzzDecodeLetter(f *testing.F) {
	f.Add("letter", "exhausted", "3:abc1:d", int64(5), []byte("body"))
	f.Add("letter", "malformed", "9:abc", int64(-5), []byte(nil))
	f.Fuzz(func(t *testing.T, id, reason, facts string, at int64, body []byte) {
		d := amqp.Delivery{Body: body, MessageId: id, Headers: amqp.Table{
			headerDeadID: id, headerDeadReason: reason, headerDeadFacts: facts, headerDeadAt: at, headerRecipient: id,
		}}
		letter, ok := testLimits.decodeLetter(&d, &delivery.Envelope{})
		require.Equal(t, id != "" && reason != "", ok)
		if !ok || len(id) > maxShortBytes || len(reason) > maxShortBytes || len(facts) > maxFactsBytes {
			return
		}
		p := amqp.Publishing{Headers: amqp.Table{}}
		testLimits.encodeLetter(&letter, &p)
		again, ok := testLimits.decodeLetter(deliver(&p), &letter.Envelope)
		require.True(t, ok)
		require.Equal(t, letter.Reason, again.Reason)
		require.Equal(t, letter.Facts, again.Facts)
		require.True(t, letter.At.Equal(again.At))
	})
}
