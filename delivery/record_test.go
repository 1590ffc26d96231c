package delivery

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/retry"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func recordAt(status Status, generation, retries int) *Record {
	return &Record{
		Message:  Message{ID: "m", Recipient: "r"},
		Progress: Progress{Status: status, Generation: generation, RetryCount: retries},
	}
}

func newsOf(status Status, generation, retries int) Update {
	return Update{ID: "m", Status: status, Generation: generation, RetryCount: retries, At: noon}
}

func TestApplyIsNewsOrLate(t *testing.T) {
	failure := &Failure{At: noon, Attempt: 0, Error: "no"}
	withFailure := func(u Update) Update { u.Failure, u.DueAt = failure, noon.Add(time.Second); return u }
	putOff := func(u Update) Update { u.DueAt = noon.Add(time.Second); return u }
	claimed := func(r *Record, by string, until time.Time) *Record { r.ClaimedBy, r.DueAt = by, until; return r }
	by := func(u Update, token string) Update { u.OnlyIfClaimedBy = token; return u }
	acked := func(u Update) Update { u.Acknowledged = true; return u }
	wasSent := func(r *Record) *Record { r.SentAt = noon; return r }
	for name, test := range map[string]struct {
		record  *Record
		update  Update
		want    error
		becomes Status
	}{
		"queued":                       {recordAt(StatusPending, 0, 0), newsOf(StatusQueued, 0, 0), nil, StatusQueued},
		"queued, told twice":           {recordAt(StatusQueued, 0, 0), newsOf(StatusQueued, 0, 0), nil, StatusQueued},
		"queued after delivered":       {recordAt(StatusDelivered, 0, 0), newsOf(StatusQueued, 0, 0), ErrLate, StatusDelivered},
		"queued, claim kept":           {claimed(recordAt(StatusPending, 0, 0), "p", noon), by(newsOf(StatusQueued, 0, 0), "p"), nil, StatusQueued},
		"queued, claim taken over":     {claimed(recordAt(StatusPending, 0, 0), "w", noon), by(newsOf(StatusQueued, 0, 0), "p"), ErrLate, StatusPending},
		"queued, put off meanwhile":    {recordAt(StatusRetrying, 0, 0), by(newsOf(StatusQueued, 0, 0), "p"), ErrLate, StatusRetrying},
		"retry in the transport":       {recordAt(StatusQueued, 0, 0), withFailure(newsOf(StatusQueued, 0, 1)), nil, StatusQueued},
		"first failure":                {recordAt(StatusQueued, 0, 0), withFailure(newsOf(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"same failure again":           {recordAt(StatusRetrying, 0, 1), withFailure(newsOf(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"failure whose retry was sent": {recordAt(StatusQueued, 0, 1), withFailure(newsOf(StatusRetrying, 0, 1)), ErrLate, StatusQueued},
		"put off":                      {recordAt(StatusQueued, 0, 1), putOff(newsOf(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"put off again":                {recordAt(StatusRetrying, 0, 1), putOff(newsOf(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"old copy put off":             {recordAt(StatusRetrying, 0, 2), putOff(newsOf(StatusRetrying, 0, 1)), ErrLate, StatusRetrying},
		"old copy delivered":           {recordAt(StatusRetrying, 0, 1), newsOf(StatusDelivered, 0, 0), ErrLate, StatusRetrying},
		"sent again":                   {recordAt(StatusRetrying, 0, 1), newsOf(StatusSent, 0, 1), nil, StatusSent},
		"sent after delivered":         {recordAt(StatusDelivered, 0, 0), newsOf(StatusSent, 0, 0), ErrLate, StatusDelivered},
		"failed for good":              {recordAt(StatusRetrying, 0, 1), withFailure(newsOf(StatusFailed, 0, 2)), nil, StatusFailed},
		"delivered after failed":       {recordAt(StatusFailed, 0, 1), newsOf(StatusDelivered, 0, 1), ErrLate, StatusFailed},
		"replay":                       {recordAt(StatusFailed, 0, 3), newsOf(StatusPending, 1, 0), nil, StatusPending},
		"replay of delivered":          {recordAt(StatusDelivered, 0, 3), newsOf(StatusPending, 1, 0), ErrLate, StatusDelivered},
		"replay that nobody noted":     {recordAt(StatusFailed, 0, 3), newsOf(StatusDelivered, 1, 0), nil, StatusDelivered},
		"earlier generation":           {recordAt(StatusPending, 1, 0), newsOf(StatusDelivered, 0, 5), ErrLate, StatusPending},

		"acknowledged":                       {recordAt(StatusSent, 0, 1), acked(newsOf(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged before sent":           {recordAt(StatusQueued, 1, 1), acked(newsOf(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged twice":                 {recordAt(StatusDelivered, 0, 1), acked(newsOf(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged after read":            {recordAt(StatusRead, 0, 1), acked(newsOf(StatusDelivered, 0, 0)), nil, StatusRead},
		"read":                               {recordAt(StatusDelivered, 0, 1), acked(newsOf(StatusRead, 0, 0)), nil, StatusRead},
		"acknowledged late":                  {wasSent(recordAt(StatusFailed, 0, 1)), acked(newsOf(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged though never sent":     {recordAt(StatusFailed, 0, 1), acked(newsOf(StatusDelivered, 0, 0)), ErrNotAwaited, StatusFailed},
		"acknowledged though cancelled":      {recordAt(StatusCancelled, 0, 0), acked(newsOf(StatusDelivered, 0, 0)), ErrNotAwaited, StatusCancelled},
		"cancelled":                          {recordAt(StatusRetrying, 0, 2), newsOf(StatusCancelled, 0, 0), nil, StatusCancelled},
		"cancelled twice":                    {recordAt(StatusCancelled, 0, 2), newsOf(StatusCancelled, 0, 0), nil, StatusCancelled},
		"cancelled while being sent":         {claimed(recordAt(StatusPending, 0, 0), "p", noon.Add(1)), newsOf(StatusCancelled, 0, 0), ErrLate, StatusPending},
		"cancelled after the sender's death": {claimed(recordAt(StatusPending, 0, 0), "p", noon), newsOf(StatusCancelled, 0, 0), nil, StatusCancelled},
		"cancelled when queued":              {recordAt(StatusQueued, 0, 0), newsOf(StatusCancelled, 0, 0), ErrLate, StatusQueued},
	} {
		t.Run(name, func(t *testing.T) {
			before := *test.record
			err := test.record.Apply(test.update)
			require.ErrorIs(t, err, test.want)
			assert.Equal(t, test.becomes, test.record.Status)
			if err != nil {
				assert.Equal(t, before, *test.record, "a refused update changes nothing")
			}
		})
	}
}

func TestApplyKeepsTheTimes(t *testing.T) {
	record := recordAt(StatusQueued, 0, 0)
	policy := retry.Exponential{Base: time.Second, Max: time.Minute, MaxRetries: 1}
	require.True(t, record.CanRetry(policy))
	require.NoError(t, record.Apply(record.ScheduleRetry(noon, policy, errors.New("busy"))))
	assert.Equal(t, 1, record.RetryCount)
	assert.Equal(t, noon, record.LastRetryAt)
	assert.Equal(t, record.NextRetryAt, record.DueAt)
	assert.True(t, record.NextRetryAt.After(noon))
	assert.Equal(t, "busy", record.FailureReason())
	assert.False(t, record.CanRetry(policy))

	sent := newsOf(StatusSent, 0, 1)
	sent.DueAt = noon.Add(time.Minute)
	require.NoError(t, record.Apply(sent))
	assert.Zero(t, record.NextRetryAt)
	assert.Equal(t, noon, record.SentAt)
	assert.Equal(t, sent.DueAt, record.AckDeadline)

	require.NoError(t, record.Apply(record.Fail(noon, "letter", errors.New("nobody home"))))
	assert.Equal(t, "letter", record.DeadLetterID)
	assert.Zero(t, record.DueAt)
	assert.Equal(t, []Failure{{At: noon, Error: "busy"}, {At: noon, Attempt: 1, Error: "nobody home"}}, record.History)

	read := Update{ID: "m", Status: StatusRead, At: noon.Add(time.Hour), Acknowledged: true}
	require.NoError(t, record.Apply(read))
	assert.Equal(t, read.At, record.DeliveredAt)
	assert.Equal(t, read.At, record.ReadAt)
	assert.False(t, record.CanRetry(policy))
}

// Whoever has claimed a queued message may hand it on, though it stays queued.
func TestApplyHandsAClaimOn(t *testing.T) {
	record := recordAt(StatusQueued, 0, 1)
	record.ClaimedBy, record.DueAt = "worker", noon
	handed := newsOf(StatusQueued, 0, 1)
	handed.OnlyIfClaimedBy, handed.ClaimedBy, handed.DueAt = "worker", "session", noon.Add(time.Minute)
	require.NoError(t, record.Apply(handed))
	assert.Equal(t, "session", record.ClaimedBy)
	assert.Equal(t, handed.DueAt, record.DueAt)
	require.ErrorIs(t, record.Apply(handed), ErrLate, "it is the worker's no longer")

	require.NoError(t, record.Apply(newsOf(StatusQueued, 0, 1)), "known")
	assert.Equal(t, "session", record.ClaimedBy)
}

func TestUpdatesOfNothing(t *testing.T) {
	now := noon
	record := Record{Message: Message{ID: "m"}}
	update := record.ScheduleRetry(now, nil, nil)
	require.NoError(t, update.Validate())
	assert.Equal(t, now, update.DueAt, "no policy, no delay")
	assert.Empty(t, update.Failure.Error)
	update = record.Fail(now, "letter", nil)
	require.NoError(t, update.Validate())
	assert.Empty(t, update.Failure.Error)
}
