package dlq_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/dlq"
)

func TestReplayIsPickedUpElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 5)
		sender := &sender{}
		defer running(t, dlq.NewManager(store, sender, dlq.Config{}))()
		console := dlq.NewManager(store, nil, dlq.Config{})
		job := start(t, console, dlq.Filter{}, 0)
		<-time.After(6 * time.Second)
		assert.Equal(t, dlq.JobDone, progress(t, console, job.ID).Status)
		jobs, err := console.Jobs(t.Context())
		require.NoError(t, err)
		assert.Len(t, jobs, 1)
	})
}
