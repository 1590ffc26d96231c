package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestQuickstart runs the whole job, as make demo does.
func TestQuickstart(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), "go", "run", ".").CombinedOutput()
	require.NoError(t, err, string(output))
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	assert.Regexp(t, `^demo: published=2000 delivered=\d+ dead_lettered=\d+ requeued=[1-9]\d* lost=0 duplicates=0$`, lines[len(lines)-1])
	for _, row := range []string{"retried", "duplicates suppressed", "permanent", "breaker transitions", "handler p50 / p95 / p99"} {
		assert.Contains(t, string(output), row)
	}
}
