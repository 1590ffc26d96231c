package rabbitmq

import (
	"strings"
	"testing"

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
