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

func drawEntry(t *rapid.T) dlq.Entry {
	// Bytes, because not every string is UTF-8.
	text := rapid.Map(rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 12), rapid.Just([]byte("base64:")), rapid.Just([]byte("plain"))),
		func(b []byte) string { return string(b) })
	moment := rapid.Map(rapid.Int64Range(-1e18, 4e18), func(n int64) time.Time { return time.Unix(0, n).UTC() })
	raw := rapid.Map(rapid.SliceOfN(rapid.Byte(), 1, 40), func(b []byte) []byte { return b })
	entry := dlq.Entry{
		ID: text.Draw(t, "id"),
		Envelope: delivery.Envelope{
			Message: delivery.Message{
				ID:             text.Draw(t, "message"),
				IdempotencyKey: text.Draw(t, "key"),
				Recipient:      text.Draw(t, "recipient"),
				Subject:        text.Draw(t, "subject"),
				Type:           text.Draw(t, "type"),
				Body:           raw.Draw(t, "body"),
				ContentType:    text.Draw(t, "content type"),
				Headers:        rapid.MapOfN(text, text, 1, 5).Draw(t, "headers"),
				Priority:       delivery.Priority(rapid.Int8().Draw(t, "priority")),
				CreatedAt:      moment.Draw(t, "created"),
				NotBefore:      moment.Draw(t, "not before"),
				ExpiresAt:      moment.Draw(t, "expires"),
				RequireAck:     rapid.Bool().Draw(t, "ack"),
			},
			Attempt:    rapid.Int().Draw(t, "attempt"),
			Generation: rapid.Int().Draw(t, "generation"),
		},
		Raw:           raw.Draw(t, "raw"),
		Reason:        delivery.Reason(text.Draw(t, "reason")),
		Error:         text.Draw(t, "error"),
		Fingerprint:   text.Draw(t, "fingerprint"),
		Source:        text.Draw(t, "source"),
		Facts:         rapid.MapOfN(text, text, 1, 5).Draw(t, "facts"),
		FirstFailedAt: moment.Draw(t, "first"),
		DeadAt:        moment.Draw(t, "dead"),
	}
	for range rapid.IntRange(1, 3).Draw(t, "failures") {
		entry.Envelope.History = append(entry.Envelope.History, delivery.Failure{
			At: moment.Draw(t, "at"), Attempt: rapid.Int().Draw(t, "attempt"), Error: text.Draw(t, "failure"),
		})
	}
	return entry
}

func TestEntryComesBackFromJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entry := drawEntry(t)
		text, err := json.Marshal(entry)
		require.NoError(t, err)
		var back dlq.Entry
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, entry, back)
	})
}

func TestZeroEntryComesBackFromJSON(t *testing.T) {
	text, err := json.Marshal(dlq.Entry{})
	require.NoError(t, err)
	back := dlq.Entry{ID: "to be overwritten", Raw: []byte("x")}
	require.NoError(t, json.Unmarshal(text, &back))
	assert.Equal(t, dlq.Entry{}, back)
}

// The form is stored, so it must not change by accident.
func TestEntryJSONForm(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.FixedZone("", 3*3600))
	text, err := json.Marshal(dlq.Entry{
		ID: "entry",
		Envelope: delivery.Envelope{
			Message: delivery.Message{
				ID: "message", Recipient: "to", Type: "sms", Body: []byte{0, 0xff}, Headers: map[string]string{"a": "b", "\xff": "c"},
				Priority: delivery.Urgent, CreatedAt: at,
			},
			Attempt: 5, Generation: 1,
			History: []delivery.Failure{{At: at, Attempt: 4, Error: "no"}},
		},
		Reason: delivery.ReasonExhausted, Error: "no", Fingerprint: "f", Source: "consumer", FirstFailedAt: at, DeadAt: at,
		Facts: map[string]string{"queue": "q", "\xff": "\xff"},
	})
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"id": "entry",
		"message": {"id": "message", "recipient": "to", "type": "sms", "body": "AP8=", "headers": {"a": "b", "base64:/w==": "c"},
			"priority": "urgent", "created_at": "2026-03-04T02:06:07.000008Z"},
		"attempts": 5, "generation": 1,
		"history": [{"at": "2026-03-04T02:06:07.000008Z", "attempt": 4, "error": "no"}],
		"reason": "exhausted", "error": "no", "fingerprint": "f", "source": "consumer",
		"facts": {"queue": "q", "base64:/w==": "base64:/w=="},
		"first_failed_at": "2026-03-04T02:06:07.000008Z", "dead_at": "2026-03-04T02:06:07.000008Z"
	}`, string(text))
}

func TestEntryJSONFaults(t *testing.T) {
	for _, text := range []string{
		`[]`, `{"id": 5}`, `{"message": {"priority": "extreme"}}`, `{"message": {"priority": "1000"}}`,
		`{"id": "base64:***"}`, `{"message": {"headers": {"base64:*": ""}}}`, `{"history": [{"error": "base64:*"}]}`,
		`{"dead_at": "yesterday"}`, `{"raw": "*"}`,
	} {
		entry := dlq.Entry{ID: "untouched"}
		require.Error(t, json.Unmarshal([]byte(text), &entry), text)
		assert.Equal(t, dlq.Entry{ID: "untouched"}, entry, text)
	}
}

func FuzzEntryJSON(f *testing.F) {
	f.Add([]byte(`{"id":"base64:/w==","message":{"priority":"-7","headers":{"a":"b"}},"history":[{"error":"x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var entry dlq.Entry
		if json.Unmarshal(text, &entry) != nil {
			return
		}
		once, err := json.Marshal(entry)
		if err != nil {
			return // a year that JSON can't hold
		}
		var back dlq.Entry
		require.NoError(t, json.Unmarshal(once, &back))
		twice, err := json.Marshal(back)
		require.NoError(t, err)
		assert.Equal(t, string(once), string(twice))
	})
}
