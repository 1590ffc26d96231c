package dlq_test

import (
	"encoding/json"
	"testing"
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
		Sends:      rapid.IntMin(0).Draw(t, "sends"),
		SendsNext:  rapid.IntMin(0).Draw(t, "next"),
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
		After: delivery.Position{At: at, ID: "entry"}, NextAt: at, Sends: 3, SendsNext: 2, CreatedAt: at, UpdatedAt: at, FinishedAt: at, Owner: "runner", LeaseUntil: at, Version: 9,
	})
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"id": "job",
		"filter": {"reason": "expired", "recipient": "base64:/w==", "type": "sms", "fingerprint": "f", "source": "consumer",
			"since": "2026-03-04T02:06:07.000008Z", "until": "2026-03-04T02:06:07.000008Z"},
		"rate": 0.5, "status": "running", "total": 4, "requeued": 1, "skipped": 2, "failed": 3, "last_error": "no",
		"after": {"at": "2026-03-04T02:06:07.000008Z", "id": "entry"}, "next_at": "2026-03-04T02:06:07.000008Z", "sends": 3, "sends_next": 2,
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
		`{"id": "job", "status": "running", "sends": -1}`, `{"id": "job", "status": "running", "sends_next": -1}`,
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
