package main

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var last = regexp.MustCompile(`^demo: published=2000 delivered=\d+ dead_lettered=\d+ requeued=[1-9]\d* lost=0 duplicates=(\d+)$`)

var limit = regexp.MustCompile(`^limit: (\d+) handlers were between effect and mark when the process was killed, and the answers to (\d+) handlers came too late`)

// TestQuickstart runs the whole job, as make demo does: with the kill.
func TestQuickstart(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), "go", "run", ".").CombinedOutput()
	text := string(output)
	require.NoError(t, err, text)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	require.Greater(t, len(lines), 2)
	ends := last.FindStringSubmatch(lines[len(lines)-1])
	require.NotNil(t, ends, text)
	bound := limit.FindStringSubmatch(lines[len(lines)-2])
	require.NotNil(t, bound, text)
	duplicates, err := strconv.Atoi(ends[1])
	require.NoError(t, err)
	between, err := strconv.Atoi(bound[1])
	require.NoError(t, err)
	late, err := strconv.Atoi(bound[2])
	require.NoError(t, err)
	assert.LessOrEqual(t, duplicates, between+late)
	for _, row := range []string{"the host killed itself after 1000 deliveries", "retried", "duplicates suppressed", "permanent", "breaker transitions", "handler p50 / p95 / p99"} {
		assert.Contains(t, text, row)
	}
}
