package rabbitmq

import (
	"strings"
	"testing"
	"time"

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
		"Queues has a name of 256 bytes": func(t *Topology) { t.Queues[0].Name = strings.Repeat("n", 256) },
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
