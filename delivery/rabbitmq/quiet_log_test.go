package rabbitmq

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// An error that ten connections find ten times a second is logged at doubling
// intervals.
func TestErrorsThatStayAreLoggedAtDoublingIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		logger := quietLogger(slog.New(slog.NewTextHandler(&text, nil)), time.Second).With("service", "x")
		lines := func() int { return strings.Count(text.String(), "\n") }
		fail := func(seconds int) {
			for i := range 10 * seconds {
				for connection := range 10 {
					logger.Error("broker channel lost", "purpose", fmt.Sprint("consume ", connection), "retry_in", i, "error", errors.New("403"))
				}
				<-time.After(100 * time.Millisecond)
			}
		}
		fail(300)
		assert.Equal(t, 5, lines(), "at 0, 10, 30, 70 and 150 s")
		assert.Contains(t, text.String(), "repeated=999")
		text.Reset()
		logger.Error("broker channel lost", "error", errors.New("404"))
		logger.Warn("broker channel lost", "error", errors.New("404"))
		logger.Warn("broker channel lost", "error", errors.New("404"))
		assert.Equal(t, 3, lines(), "others are not held back")
		<-time.After(20 * time.Second)
		text.Reset()
		fail(1)
		assert.Equal(t, 1, lines(), "what was mended in between is new")
	})
}
