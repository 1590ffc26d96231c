package dlq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

func drawJob(t *rapid.T) dlq.Job {
	text := rapid.Map(rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 1, 12), rapid.Just([]byte("base64:")), rapid.Just([]byte("plain"))),
		func(b []byte) string { return string(b) })
	moment := rapid.Map(rapid.Int64Range(-1e15, 4e15), func(n int64) time.Time { return time.UnixMicro(n).UTC() })
	return dlq.Job{
		ID: text.Draw(t, "id"),
		Filter: dlq.Filter{
			Reason: delivery.Reason(text.Draw(t, "reason")), Recipient: text.Draw(t, "recipient"), Type: text.Draw(t, "type"),
			Fingerprint: text.Draw(t, "fingerprint"), Source: text.Draw(t, "source"),
			Since: moment.Draw(t, "since"), Until: moment.Draw(t, "until"),
		},
		Rate:       rapid.Float64Range(0, 1e9).Draw(t, "rate"),
		Status:     dlq.JobStatus(text.Draw(t, "status")),
		Total:      rapid.Int().Draw(t, "total"),
		Requeued:   rapid.Int().Draw(t, "requeued"),
		Skipped:    rapid.Int().Draw(t, "skipped"),
		Failed:     rapid.Int().Draw(t, "failed"),
		LastError:  text.Draw(t, "error"),
		After:      delivery.Position{At: moment.Draw(t, "place"), ID: text.Draw(t, "entry")},
		NextAt:     moment.Draw(t, "next"),
		CreatedAt:  moment.Draw(t, "created"),
		UpdatedAt:  moment.Draw(t, "updated"),
		FinishedAt: moment.Draw(t, "finished"),
		Owner:      text.Draw(t, "owner"),
		LeaseUntil: moment.Draw(t, "lease"),
		Version:    rapid.Int64Min(0).Draw(t, "version"),
	}
}

func TestJobComesBackFromJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := drawJob(t)
		text, err := json.Marshal(job)
		require.NoError(t, err)
		var back dlq.Job
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, job, back)
	})
}

// The form is stored, so it must not change by accident.
func TestJobJSONForm(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.FixedZone("", 3*3600))
	text, err := json.Marshal(dlq.Job{
		ID:     "job",
		Filter: dlq.Filter{Reason: delivery.ReasonExpired, Recipient: "\xff", Type: "sms", Fingerprint: "f", Source: "consumer", Since: at, Until: at},
		Rate:   0.5, Status: dlq.JobRunning, Total: 4, Requeued: 1, Skipped: 2, Failed: 3, LastError: "no",
		After: delivery.Position{At: at, ID: "entry"}, NextAt: at, CreatedAt: at, UpdatedAt: at, FinishedAt: at, Owner: "runner", LeaseUntil: at, Version: 9,
	})
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"id": "job",
		"filter": {"reason": "expired", "recipient": "base64:/w==", "type": "sms", "fingerprint": "f", "source": "consumer",
			"since": "2026-03-04T02:06:07.000008Z", "until": "2026-03-04T02:06:07.000008Z"},
		"rate": 0.5, "status": "running", "total": 4, "requeued": 1, "skipped": 2, "failed": 3, "last_error": "no",
		"after": {"at": "2026-03-04T02:06:07.000008Z", "id": "entry"}, "next_at": "2026-03-04T02:06:07.000008Z",
		"created_at": "2026-03-04T02:06:07.000008Z", "updated_at": "2026-03-04T02:06:07.000008Z",
		"finished_at": "2026-03-04T02:06:07.000008Z", "owner": "runner", "lease_until": "2026-03-04T02:06:07.000008Z", "version": 9
	}`, string(text))
	text, err = json.Marshal(dlq.Job{ID: "job", Status: dlq.JobDone, CreatedAt: at})
	require.NoError(t, err)
	assert.JSONEq(t, `{"id": "job", "filter": {}, "status": "done", "total": 0, "requeued": 0, "skipped": 0, "failed": 0,
		"created_at": "2026-03-04T02:06:07.000008Z", "version": 0}`, string(text))
}

func TestJobJSONFaults(t *testing.T) {
	for _, text := range []string{
		`[]`, `{}`, `{"id": "job"}`, `{"status": "running"}`, `{"id": 5, "status": "running"}`, `{"id": "base64:*", "status": "running"}`,
		`{"id": "job", "status": "running", "version": -1}`, `{"id": "job", "status": "running", "rate": -1}`,
		`{"id": "job", "status": "running", "created_at": "yesterday"}`, `{"id": "job", "status": "running", "after": {"id": "base64:*"}}`,
	} {
		job := dlq.Job{ID: "untouched"}
		require.Error(t, json.Unmarshal([]byte(text), &job), text)
		assert.Equal(t, dlq.Job{ID: "untouched"}, job, text)
	}
}

func FuzzJobJSON(f *testing.F) {
	f.Add([]byte(`{"id": "job", "filter": {"recipient": "base64:/w=="}, "rate": 0.5, "status": "running", "after": {"at": "2026-03-04T02:06:07Z", "id": "e"}, "created_at": "2026-03-04T02:06:07.000008Z", "version": 9}`))
	f.Add([]byte(`{"id": "base64:YmFzZTY0Og==", "status": "done", "lease_until": "2026-03-04T02:06:07+03:00"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var job dlq.Job
		if json.Unmarshal(text, &job) != nil {
			return
		}
		again, err := json.Marshal(job)
		if err != nil {
			return // a year that JSON has no form for
		}
		var back dlq.Job
		require.NoError(t, json.Unmarshal(again, &back))
		if job.After.ID == "" {
			job.After = delivery.Position{}
		}
		require.Equal(t, job, back)
	})
}

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

// The store's answer to a change gets lost; the client tries again, and is told
// that somebody changed the job.
func TestReplayWhenAnswersGetLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &forgetful{Memory: filled(t, 40)}
		sender := &sender{}
		manager := dlq.NewManager(store, sender, dlq.Config{BatchSize: 10})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(10 * time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, 40, job.Requeued)
		requireSentOnce(t, sender, 40)
	})
}

type forgetful struct{ *dlq.Memory }

func (f *forgetful) SaveJob(ctx context.Context, job dlq.Job) error {
	if err := f.Memory.SaveJob(ctx, job); err != nil {
		return err
	}
	return fmt.Errorf("second try: %w", dlq.ErrJobChanged)
}

// What a batch holds is put again with other properties between reading and
// claiming: it is no longer the job's.
func TestReplayLeavesWhatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &replacing{Memory: filled(t, 3)}
		manager := dlq.NewManager(store, &sender{}, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		synctest.Wait()
		job = progress(t, manager, job.ID)
		assert.Equal(t, []int{2, 1, 0}, []int{job.Requeued, job.Skipped, job.Failed})
		assert.Equal(t, []string{"letter-00001"}, kept(t, manager))
		_, err := manager.Delete(t.Context(), "letter-00001")
		require.NoError(t, err, "it is free")
	})
}

type replacing struct{ *dlq.Memory }

func (r *replacing) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	entries, errs := r.Get(ctx, "letter-00001")
	if err := errors.Join(errs...); err != nil {
		return nil, errs
	}
	entries[0].DeadAt = claim.Now
	if err := r.Put(ctx, entries[0]); err != nil {
		return nil, []error{err}
	}
	return r.Memory.Claim(ctx, claim, ids...)
}
