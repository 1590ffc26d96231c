package delivery_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The code that the package comment begins with is that of an example, which runs.
func TestPackageCommentCompiles(t *testing.T) {
	comment, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	example, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, code, found := strings.Cut(string(comment), "//\n//\t")
	require.True(t, found)
	code, _, found = strings.Cut(code, "//\n// A")
	require.True(t, found)
	lines := 0
	for line := range strings.Lines("//\t" + code) {
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "//"), " //")
		assert.Contains(t, string(example), strings.TrimSpace(line))
		lines++
	}
	assert.Greater(t, lines, 5)
}
