package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// transaction is a Saver that tells when it was committed.
type transaction struct {
	delivery.Saver
	committed int
}

func (s *transaction) Committed() { s.committed++ }

func TestPublishInTellsItsSaver(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		saver := &transaction{Saver: records}
		later := to("later")
		later.NotBefore = time.Now().Add(time.Hour)
		committed, err := f.publisher.PublishIn(f.t.Context(), saver, to("now"), later)
		require.NoError(t, err)
		assert.Zero(t, saver.committed)
		committed()
		committed()
		assert.Equal(t, 1, saver.committed)
		wait(time.Second)
		assert.EqualValues(t, 1, f.waiting())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}
