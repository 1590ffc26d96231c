package delivery_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// What calls return can be passed on as JSON: one casing, no zero times, and errors
// that say something.
func TestJSONOfResults(t *testing.T) {
	failed := delivery.Result{ID: "b", Err: delivery.ErrUnroutable}
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	record := delivery.Record{
		Message:  delivery.Message{ID: "a", Recipient: "r", Priority: delivery.High, CreatedAt: at, Body: []byte("x")},
		Progress: delivery.Progress{Queue: "q", Status: delivery.StatusRetrying, RetryCount: 1, NextRetryAt: at, History: []delivery.Failure{{At: at, Attempt: 1, Error: "busy"}}},
	}
	for name, test := range map[string]struct {
		value any
		want  string
	}{
		"result":        {delivery.Result{ID: "a"}, `{"id": "a"}`},
		"failed result": {failed, `{"id": "b", "error": "delivery: no queue takes the message"}`},
		"batch": {
			delivery.BatchResult{Total: 2, Succeeded: 1, Failed: 1, Results: []delivery.Result{{ID: "a"}, failed}},
			`{"total": 2, "succeeded": 1, "failed": 1, "results": [{"id": "a"}, {"id": "b", "error": "delivery: no queue takes the message"}]}`,
		},
		"results error": {&delivery.ResultsError{Results: []delivery.Result{failed}}, `{"results": [{"id": "b", "error": "delivery: no queue takes the message"}]}`},
		"batch error": {
			&delivery.BatchError{Size: 3, Limit: 1000, Invalid: []delivery.InvalidMessage{{Index: 1, ID: "b", Err: &delivery.InvalidError{Field: "ID", Problem: "is odd"}}}},
			`{"size": 3, "limit": 1000, "invalid": [{"index": 1, "id": "b", "error": "delivery: message ID is odd"}]}`,
		},
		"record": {record, `{"id": "a", "recipient": "r", "priority": "high", "body": "eA==", "created_at": "2026-03-04T05:06:07Z", "queue": "q", "status": "retrying",
			"generation": 0, "retry_count": 1, "next_retry_at": "2026-03-04T05:06:07Z", "history": [{"at": "2026-03-04T05:06:07Z", "attempt": 1, "error": "busy"}]}`},
		"envelope": {delivery.Envelope{Message: record.Message, Attempt: 2}, `{"id": "a", "recipient": "r", "priority": "high", "body": "eA==", "created_at": "2026-03-04T05:06:07Z", "attempt": 2, "generation": 0}`},
		"page":     {delivery.RecordPage{Next: "c"}, `{"records": null, "next": "c"}`},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(test.value)
			require.NoError(t, err)
			assert.JSONEq(t, test.want, string(text))
		})
	}
	var again delivery.Record
	text, err := json.Marshal(record)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &again))
	assert.Equal(t, record, again)
	_, err = json.Marshal(delivery.Result{Err: panickingError{}})
	require.NoError(t, err, "the host's errors may panic")
}

type panickingError struct{}

func (panickingError) Error() string { panic("no text") }
