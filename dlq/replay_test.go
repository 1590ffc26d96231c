package dlq_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/dlq"
)

func TestReplayArguments(t *testing.T) {
	ctx := context.Background()
	manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{})
	for _, rate := range []float64{-1, math.NaN(), math.Inf(1), math.Inf(-1), dlq.MinRate / 2, dlq.MaxRate * 2} {
		_, err := manager.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{Rate: rate})
		require.ErrorIs(t, err, dlq.ErrInvalid, rate)
		require.ErrorContains(t, err, "Rate")
	}
	future := dlq.Filter{Since: time.Now().Add(time.Hour)}
	_, err := manager.StartReplay(ctx, future, dlq.ReplayConfig{})
	require.ErrorIs(t, err, dlq.ErrQuery, "nothing can have been given up by now")
	_, err = manager.Preview(ctx, dlq.Filter{Since: noon, Until: noon})
	require.ErrorIs(t, err, dlq.ErrQuery)
	jobs, err := manager.Jobs(ctx)
	require.NoError(t, err)
	assert.Empty(t, jobs)

	until := time.Now().Add(-time.Hour)
	job, err := manager.StartReplay(ctx, dlq.Filter{Until: until}, dlq.ReplayConfig{Rate: dlq.MinRate})
	require.NoError(t, err)
	assert.True(t, job.Filter.Until.Equal(until), "an earlier end stays")
	got, err := manager.Job(ctx, job.ID)
	require.NoError(t, err)
	assert.Equal(t, job, got)
}

func TestReplayNeedsAStoreOfJobsAndASender(t *testing.T) {
	ctx := context.Background()
	without := dlq.NewManager(&broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}, &sender{}, dlq.Config{})
	faulty := dlq.NewManager(nil, nil, dlq.Config{})
	for manager, want := range map[*dlq.Manager]error{without: dlq.ErrNoJobs, faulty: dlq.ErrConfig, nil: dlq.ErrConfig, {}: dlq.ErrConfig} {
		_, startErr := manager.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{})
		_, jobErr := manager.Job(ctx, "id")
		_, jobsErr := manager.Jobs(ctx)
		for _, err := range []error{startErr, jobErr, jobsErr, manager.CancelReplay(ctx, "id"), manager.RunJobs(ctx)} {
			require.ErrorIs(t, err, want)
		}
	}
	_, err := without.Preview(ctx, dlq.Filter{})
	require.NoError(t, err, "counting needs no jobs")
	_, err = faulty.Preview(ctx, dlq.Filter{})
	require.ErrorIs(t, err, dlq.ErrConfig)
	require.ErrorIs(t, dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{}).RunJobs(ctx), dlq.ErrNoSender)
}

func TestCancelReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		manager := dlq.NewManager(filled(t, 3), &sender{}, dlq.Config{})
		require.ErrorIs(t, manager.CancelReplay(t.Context(), "nobody"), dlq.ErrJobNotFound)
		job := start(t, manager, dlq.Filter{}, 0)
		require.NoError(t, manager.CancelReplay(t.Context(), job.ID))
		cancelled := progress(t, manager, job.ID)
		<-time.After(time.Second)
		require.NoError(t, manager.CancelReplay(t.Context(), job.ID))
		assert.Equal(t, cancelled, progress(t, manager, job.ID))
		assert.True(t, cancelled.Finished())

		defer running(t, manager)()
		<-time.After(time.Minute)
		assert.Equal(t, cancelled, progress(t, manager, job.ID), "nobody picks it up")
		assert.Len(t, kept(t, manager), 3)
		job = start(t, manager, dlq.Filter{}, 0)
		synctest.Wait()
		require.ErrorIs(t, manager.CancelReplay(t.Context(), job.ID), dlq.ErrJobFinished)
	})
}

func TestJobsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		manager := dlq.NewManager(filled(t, 1), nil, dlq.Config{})
		var first dlq.Job
		for i := range dlq.MaxRunningJobs {
			job := start(t, manager, dlq.Filter{}, 0)
			if i == 0 {
				first = job
			}
			<-time.After(time.Second) // of jobs of the same time, IDs say which is newest
		}
		_, err := manager.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{})
		require.ErrorIs(t, err, dlq.ErrTooManyJobs)
		for range 3 * dlq.KeptJobs / 2 {
			jobs, err := manager.Jobs(ctx)
			require.NoError(t, err)
			require.NoError(t, manager.CancelReplay(ctx, jobs[0].ID))
			<-time.After(time.Second)
			start(t, manager, dlq.Filter{}, 0)
		}
		jobs, err := manager.Jobs(ctx)
		require.NoError(t, err)
		running := 0
		for i := range jobs {
			if !jobs[i].Finished() {
				running++
			}
		}
		assert.Equal(t, dlq.MaxRunningJobs, running, "no unfinished one is deleted, however old")
		assert.InDelta(t, dlq.KeptJobs, len(jobs)-running, 1)
		progress(t, manager, first.ID)
	})
}
