package rabbitmq

import (
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTopologyFaults(t *testing.T) {
	for want, change := range map[string]func(*Topology){
		"0 levels for the priority urgent": func(t *Topology) { t.Levels = t.Levels[1:] },
		"2 levels for the priority low":    func(t *Topology) { t.Levels = append(t.Levels, t.Levels[3]) },
		"Levels[0].Queue is empty":         func(t *Topology) { t.Levels[0].Queue = "" },
		"Levels[0].Address":                func(t *Topology) { t.Levels[0].Address = strings.Repeat("a", 216) },
		"Delays has 23 levels":             func(t *Topology) { t.Delays = make([]string, 23) },
		`Queues "q.dlq" argument "x-max-length" is a uint64, want int64`: func(t *Topology) {
			t.Queues[0].Arguments["x-max-length"] = uint64(5)
		},
		`Queues "q.dlq" argument "x-message-ttl" is a time.Duration, want int64`: func(t *Topology) {
			t.Queues[0].Arguments["x-message-ttl"] = time.Minute
		},
		`Queues "q.dlq" argument "x-list" is a []string`: func(t *Topology) {
			t.Queues[0].Arguments["x-list"] = []string{"a"}
		},
		`Queues "q.dlq" argument "x-expires" is 4294967296 as an int`: func(t *Topology) {
			t.Queues[0].Arguments["x-expires"] = 1 << 32
		},
		`Exchanges "q" argument "x-bits" is a uint, want int64`: func(t *Topology) {
			t.Exchanges[0].Arguments = map[string]any{"x-bits": uint(1)}
		},
		"Queues[0].Name has 256 bytes, want at most 255": func(t *Topology) { t.Queues[0].Name = strings.Repeat("n", 256) },
		"Queues[0].Name is empty":                        func(t *Topology) { t.Queues[0].Name = "" },
		`Exchanges[0].Name is "q\n"`:                     func(t *Topology) { t.Exchanges[0].Name = "q\n" },
		"Exchanges[0].Kind is empty":                     func(t *Topology) { t.Exchanges[0].Kind = "" },
		"Bindings[0].Key has 256 bytes":                  func(t *Topology) { t.Bindings[0].Key = strings.Repeat("n", 256) },
		"Bindings[0].Source is empty":                    func(t *Topology) { t.Bindings[0].Source = "" },
		"Levels[0].Route.Key has 256 bytes":              func(t *Topology) { t.Levels[0].Route.Key = strings.Repeat("n", 256) },
		`Levels[0].Queue is "q\r"`:                       func(t *Topology) { t.Levels[0].Queue = "q\r" },
		"Delays[0] is empty":                             func(t *Topology) { t.Delays[0] = "" },
		"DeadLetter.Exchange has 256 bytes":              func(t *Topology) { t.DeadLetter.Exchange = strings.Repeat("n", 256) },
		`UnroutableQueue is "q\t"`:                       func(t *Topology) { t.UnroutableQueue = "q\t" },
		`Queues "q.dlq" argument "x-nested" is a amqp091.Table`: func(t *Topology) {
			t.Queues[0].Arguments["x-nested"] = amqp.Table{"a": uint64(1)}
		},
	} {
		t.Run(want, func(t *testing.T) {
			topology := Quorum("q", Version{})
			change(&topology)
			err := topology.validate()
			require.ErrorIs(t, err, ErrConfig)
			assert.ErrorContains(t, err, want)
		})
	}
}
