package dlq_test

import (
	"bytes"
	"log/slog"
	"strings"
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

// A job that nobody runs is not passed over in silence; one that some process runs, or
// that is cancelled, is not complained of.
func TestAReplayWithoutARunnerIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 3)
		var log bytes.Buffer
		console := dlq.NewManager(store, nil, dlq.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		job := start(t, console, dlq.Filter{}, 0)
		cancelled := start(t, console, dlq.Filter{}, 0)
		require.NoError(t, console.CancelReplay(t.Context(), cancelled.ID))
		<-time.After(11 * time.Second)
		synctest.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "replay has no runner"))
		require.Contains(t, log.String(), `msg="replay has no runner" job=`+job.ID+` want="a process that runs Manager.RunJobs"`)

		stop := running(t, dlq.NewManager(store, &sender{}, dlq.Config{}))
		<-time.After(6 * time.Second)
		require.Equal(t, dlq.JobDone, progress(t, console, job.ID).Status)
		log.Reset()
		start(t, console, dlq.Filter{}, dlq.MinRate)
		<-time.After(time.Minute)
		synctest.Wait()
		require.NotContains(t, log.String(), "no runner")
		stop()
	})
}
