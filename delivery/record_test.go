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

func updateTo(status Status, generation, retries int) Update {
	return Update{ID: "m", Status: status, Generation: generation, RetryCount: retries, At: noon}
}

func TestApplyJudgesEachUpdate(t *testing.T) {
	failure := &Failure{At: noon, Attempt: 1, Error: "no"}
	withFailure := func(u Update) Update { u.Failure, u.DueAt = failure, noon.Add(time.Second); return u }
	putOff := func(u Update) Update { u.DueAt = noon.Add(time.Second); return u }
	claimed := func(r *Record, by string, until time.Time) *Record { r.ClaimedBy, r.DueAt = by, until; return r }
	by := func(u Update, token string) Update { u.OnlyIfClaimedBy = token; return u }
	wake := func(u Update) Update { u.OnlyIfWaiting, u.DueAt = true, noon; return u }
	waits := func(r *Record) *Record { return claimed(r, "", noon.Add(time.Hour)) }
	acked := func(u Update) Update { u.Acknowledged = true; return u }
	wasSent := func(r *Record) *Record { r.SentAt = noon; return r }
	for name, test := range map[string]struct {
		record  *Record
		update  Update
		want    error
		becomes Status
	}{
		"queued":                       {recordAt(StatusPending, 0, 0), updateTo(StatusQueued, 0, 0), nil, StatusQueued},
		"queued, recorded twice":       {recordAt(StatusQueued, 0, 0), updateTo(StatusQueued, 0, 0), nil, StatusQueued},
		"queued after delivered":       {recordAt(StatusDelivered, 0, 0), updateTo(StatusQueued, 0, 0), ErrLate, StatusDelivered},
		"queued, claim kept":           {claimed(recordAt(StatusPending, 0, 0), "p", noon), by(updateTo(StatusQueued, 0, 0), "p"), nil, StatusQueued},
		"queued, claim taken over":     {claimed(recordAt(StatusPending, 0, 0), "w", noon), by(updateTo(StatusQueued, 0, 0), "p"), ErrLate, StatusPending},
		"queued, put off meanwhile":    {recordAt(StatusRetrying, 0, 0), by(updateTo(StatusQueued, 0, 0), "p"), ErrLate, StatusRetrying},
		"retry in the transport":       {recordAt(StatusQueued, 0, 0), withFailure(updateTo(StatusQueued, 0, 1)), nil, StatusQueued},
		"first failure":                {recordAt(StatusQueued, 0, 0), withFailure(updateTo(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"same failure again":           {recordAt(StatusRetrying, 0, 1), withFailure(updateTo(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"failure whose retry was sent": {recordAt(StatusQueued, 0, 1), withFailure(updateTo(StatusRetrying, 0, 1)), ErrLate, StatusQueued},
		"put off":                      {recordAt(StatusQueued, 0, 1), putOff(updateTo(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"put off again":                {recordAt(StatusRetrying, 0, 1), putOff(updateTo(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"woken":                        {waits(recordAt(StatusRetrying, 0, 1)), wake(updateTo(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"woken when due":               {claimed(recordAt(StatusRetrying, 0, 1), "", noon), wake(updateTo(StatusRetrying, 0, 1)), nil, StatusRetrying},
		"woken while being sent":       {claimed(recordAt(StatusRetrying, 0, 1), "w", noon.Add(time.Hour)), wake(updateTo(StatusRetrying, 0, 1)), ErrLate, StatusRetrying},
		"woken when sent":              {recordAt(StatusQueued, 0, 1), wake(updateTo(StatusRetrying, 0, 1)), ErrLate, StatusQueued},
		"woken before the next wait":   {waits(recordAt(StatusRetrying, 0, 2)), wake(updateTo(StatusRetrying, 0, 1)), ErrLate, StatusRetrying},
		"woken before the replay":      {recordAt(StatusFailed, 0, 1), wake(updateTo(StatusRetrying, 1, 0)), ErrLate, StatusFailed},
		"old copy put off":             {recordAt(StatusRetrying, 0, 2), putOff(updateTo(StatusRetrying, 0, 1)), ErrLate, StatusRetrying},
		"old copy delivered":           {recordAt(StatusRetrying, 0, 1), updateTo(StatusDelivered, 0, 0), ErrLate, StatusRetrying},
		"sent again":                   {recordAt(StatusRetrying, 0, 1), updateTo(StatusSent, 0, 1), nil, StatusSent},
		"sent after delivered":         {recordAt(StatusDelivered, 0, 0), updateTo(StatusSent, 0, 0), ErrLate, StatusDelivered},
		"failed for good":              {recordAt(StatusRetrying, 0, 1), withFailure(updateTo(StatusFailed, 0, 2)), nil, StatusFailed},
		"delivered after failed":       {recordAt(StatusFailed, 0, 1), updateTo(StatusDelivered, 0, 1), ErrLate, StatusFailed},
		"replay":                       {recordAt(StatusFailed, 0, 3), updateTo(StatusPending, 1, 0), nil, StatusPending},
		"replay of delivered":          {recordAt(StatusDelivered, 0, 3), updateTo(StatusPending, 1, 0), ErrLate, StatusDelivered},
		"replay that was not recorded": {recordAt(StatusFailed, 0, 3), updateTo(StatusDelivered, 1, 0), nil, StatusDelivered},
		"earlier generation":           {recordAt(StatusPending, 1, 0), updateTo(StatusDelivered, 0, 5), ErrLate, StatusPending},

		"acknowledged":                       {recordAt(StatusSent, 0, 1), acked(updateTo(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged before sent":           {recordAt(StatusQueued, 1, 1), acked(updateTo(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged twice":                 {recordAt(StatusDelivered, 0, 1), acked(updateTo(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged after read":            {recordAt(StatusRead, 0, 1), acked(updateTo(StatusDelivered, 0, 0)), nil, StatusRead},
		"read":                               {recordAt(StatusDelivered, 0, 1), acked(updateTo(StatusRead, 0, 0)), nil, StatusRead},
		"acknowledged late":                  {wasSent(recordAt(StatusFailed, 0, 1)), acked(updateTo(StatusDelivered, 0, 0)), nil, StatusDelivered},
		"acknowledged though never sent":     {recordAt(StatusFailed, 0, 1), acked(updateTo(StatusDelivered, 0, 0)), ErrNotAwaited, StatusFailed},
		"acknowledged though cancelled":      {recordAt(StatusCancelled, 0, 0), acked(updateTo(StatusDelivered, 0, 0)), ErrNotAwaited, StatusCancelled},
		"cancelled":                          {recordAt(StatusRetrying, 0, 2), updateTo(StatusCancelled, 0, 0), nil, StatusCancelled},
		"cancelled twice":                    {recordAt(StatusCancelled, 0, 2), updateTo(StatusCancelled, 0, 0), nil, StatusCancelled},
		"cancelled while being sent":         {claimed(recordAt(StatusPending, 0, 0), "p", noon.Add(1)), updateTo(StatusCancelled, 0, 0), ErrLate, StatusPending},
		"cancelled after the sender's death": {claimed(recordAt(StatusPending, 0, 0), "p", noon), updateTo(StatusCancelled, 0, 0), nil, StatusCancelled},
		"cancelled when queued":              {recordAt(StatusQueued, 0, 0), updateTo(StatusCancelled, 0, 0), ErrLate, StatusQueued},
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
	require.NoError(t, record.Apply(record.scheduleRetry(noon, policy.Delay(record.RetryCount), errors.New("busy"))))
	assert.Equal(t, 1, record.RetryCount)
	assert.Equal(t, noon, record.LastRetryAt)
	assert.Equal(t, record.NextRetryAt, record.DueAt)
	assert.True(t, record.NextRetryAt.After(noon))
	assert.Equal(t, "busy", record.FailureReason())
	assert.False(t, record.CanRetry(policy))

	sent := updateTo(StatusSent, 0, 1)
	sent.DueAt = noon.Add(time.Minute)
	require.NoError(t, record.Apply(sent))
	assert.Zero(t, record.NextRetryAt)
	assert.Equal(t, noon, record.SentAt)
	assert.Equal(t, sent.DueAt, record.AckDeadline)

	failed := record.fail(noon, errors.New("nobody home"))
	failed.DeadLetterID = "letter"
	require.NoError(t, record.Apply(failed))
	assert.Equal(t, "letter", record.DeadLetterID)
	assert.Zero(t, record.DueAt)
	assert.Equal(t, []Failure{{At: noon, Attempt: 1, Error: "busy"}, {At: noon, Attempt: 2, Error: "nobody home"}}, record.History)

	read := Update{ID: "m", Status: StatusRead, At: noon.Add(time.Hour), Acknowledged: true}
	require.NoError(t, record.Apply(read))
	assert.Equal(t, read.At, record.DeliveredAt)
	assert.Equal(t, read.At, record.ReadAt)
	assert.False(t, record.CanRetry(policy))
}

// Whoever has claimed a queued message may pass the claim on, though it stays queued.
func TestApplyPassesAClaimOn(t *testing.T) {
	record := recordAt(StatusQueued, 0, 1)
	record.ClaimedBy, record.DueAt = "worker", noon
	passed := updateTo(StatusQueued, 0, 1)
	passed.OnlyIfClaimedBy, passed.ClaimedBy, passed.DueAt = "worker", "session", noon.Add(time.Minute)
	require.NoError(t, record.Apply(passed))
	assert.Equal(t, "session", record.ClaimedBy)
	assert.Equal(t, passed.DueAt, record.DueAt)
	require.ErrorIs(t, record.Apply(passed), ErrLate, "it is the worker's no longer")

	require.NoError(t, record.Apply(updateTo(StatusQueued, 0, 1)), "known")
	assert.Equal(t, "session", record.ClaimedBy)
}

func TestAMessageThatCanNotBeSentCountsNoAttempt(t *testing.T) {
	record := recordAt(StatusRetrying, 1, 2)
	update := record.failUnsent(noon, errors.New("too large"))
	require.NoError(t, update.Validate())
	require.NoError(t, record.Apply(update))
	assert.Equal(t, 2, record.RetryCount)
	assert.Equal(t, []Failure{{At: noon, Attempt: 3, Error: "too large"}}, record.History, "the attempt that it was to be sent for")
}

// Hosts keep records and statistics in maps, whose elements have no address.
func TestReadOnlyMethodsOfMapElements(t *testing.T) {
	records := map[string]Record{"m": *recordAt(StatusRetrying, 0, 1)}
	assert.Empty(t, records["m"].FailureReason())
	assert.Empty(t, records["no such message"].FailureReason())
	assert.True(t, records["m"].CanRetry(retry.Exponential{MaxRetries: 2}))
	stats := map[string]RecordStats{"orders": {Counts: map[Status]map[Priority]int{StatusSent: {Low: 1, High: 2}}}}
	assert.Equal(t, 3, stats["orders"].Of(StatusSent))
}

func TestApplyKeepsOrMovesTheQueue(t *testing.T) {
	r := Record{Message: Message{ID: "m"}, Progress: Progress{Queue: "mail", Status: StatusPending}}
	for _, step := range []struct {
		update Update
		queue  string
	}{
		{Update{ID: "m", Status: StatusQueued}, "mail"},
		{Update{ID: "m", Status: StatusRetrying, Queue: "sms", DueAt: time.Unix(5, 0)}, "sms"},
		{Update{ID: "m", Status: StatusPending, Queue: "mail"}, "sms"}, // late
		{Update{ID: "m", Status: StatusDelivered, Acknowledged: true}, "sms"},
	} {
		step.update.At = time.Unix(1, 0)
		_ = r.Apply(step.update)
		require.Equal(t, step.queue, r.Queue, "%+v", step.update)
	}
}
