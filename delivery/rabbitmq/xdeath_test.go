package rabbitmq

import (
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
)

func TestDeathOf(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	latest := amqp.Table{
		"reason": "rejected", "queue": "q.normal", "count": int64(3), "time": at.In(time.FixedZone("east", 3600)),
		"exchange": "q", "routing-keys": []any{"normal", "copy"},
	}
	d := parseXDeath(amqp.Table{"x-death": []any{latest, amqp.Table{"reason": "expired", "queue": "q.delay.3"}}})
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
			d := parseXDeath(headers)
			assert.Empty(t, d.facts)
			assert.Zero(t, d.at)
			assert.Contains(t, d.String(), "does not say why")
		})
	}
	long := parseXDeath(amqp.Table{"x-death": []any{amqp.Table{"queue": strings.Repeat("ä", 10_000), "routing-keys": []any{int64(1), strings.Repeat("k", 2000)}}}})
	assert.Len(t, long.facts[FactQueue], maxFactBytes)
	assert.Len(t, long.facts[FactRoutingKeys], maxFactBytes)
}
