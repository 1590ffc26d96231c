package retry

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whoever imports retry alone links nothing but what computes the waits, least
// of all a client of something whose errors Classifier could know.
func TestRetryLinksNoClient(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	linked, err := list.Output()
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{
		"github.com/esh3artech/barid/retry",
		"github.com/cenkalti/backoff/v4",
	}, strings.Fields(string(linked)))
}
