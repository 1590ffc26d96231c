package rabbitmq

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// requireCanGoOn takes what was decoded every way that a message can go: it is
// retried, becomes a dead letter in the broker and in a store, and is sent again.
func requireCanGoOn(t require.TestingT, d *amqp.Delivery) {
	dueOf(d)
	parseXDeath(d.Headers)
	e, err := testLimits.decode(d)
	letter := delivery.DeadLetter{ID: "letter", Reason: delivery.ReasonExhausted, Error: "last", Source: "me", At: time.Unix(5, 6).UTC()}
	if err != nil {
		var malformed *delivery.MalformedError
		require.ErrorAs(t, err, &malformed)
		e = &malformed.Envelope
		letter.Reason, letter.Raw, letter.Error = delivery.ReasonMalformed, d.Body, err.Error()
		require.LessOrEqual(t, len(letter.Error), maxErrorBytes)
	}
	requireBounded(t, e)
	letter.Envelope = *e
	requireLetterKept(t, letter)
	if err != nil {
		return
	}
	next := *e
	next.Attempt++
	next.History = append(next.History, delivery.Failure{At: time.Unix(7, 0).UTC(), Attempt: next.Attempt, Error: "again"})
	requireSent(t, next)
	next = *e
	next.Generation++
	next.Attempt, next.History = 0, nil
	requireSent(t, next)
}

// requireSent has an envelope sent and received.
func requireSent(t require.TestingT, e delivery.Envelope) {
	p := amqp.Publishing{Headers: amqp.Table{}}
	require.NoError(t, testLimits.encode(&e, time.Now(), &p))
	require.NoError(t, p.Headers.Validate())
	received, err := testLimits.decode(deliver(&p))
	if max(e.Attempt, e.Generation) == maxCount { // this was the last time
		require.ErrorIs(t, err, delivery.ErrMalformed)
		return
	}
	require.NoError(t, err)
	require.Equal(t, e.Message, received.Message)
	require.Equal(t, e.Attempt, received.Attempt)
	require.Equal(t, e.Generation, received.Generation)
}

// requireLetterKept has a letter put into the dead-letter queue, collected, and
// stored as JSON.
func requireLetterKept(t require.TestingT, letter delivery.DeadLetter) {
	p := amqp.Publishing{Headers: amqp.Table{}}
	testLimits.encodeLetter(&letter, &p)
	require.NoError(t, p.Headers.Validate())
	d := deliver(&p)
	envelope, err := testLimits.decode(d)
	var malformed *delivery.MalformedError
	if errors.As(err, &malformed) {
		require.Equal(t, delivery.ReasonMalformed, letter.Reason)
		envelope = &malformed.Envelope
	}
	again, ok := testLimits.decodeLetter(d, envelope)
	require.True(t, ok)
	requireBounded(t, &again.Envelope)
	require.Equal(t, letter.Envelope.ID, again.Envelope.ID)
	require.Equal(t, letter.Envelope.Headers, again.Envelope.Headers)
	require.Equal(t, letter.Envelope.Attempt, again.Envelope.Attempt)
	require.Equal(t, letter.Envelope.Generation, again.Envelope.Generation)
	entry := dlq.Entry{
		ID: again.ID, Envelope: again.Envelope, Raw: again.Raw, Reason: again.Reason, Error: again.Error,
		Source: again.Source, Facts: again.Facts, DeadAt: again.At, FirstFailedAt: again.At,
	}
	text, err := json.Marshal(entry)
	require.NoError(t, err)
	var stored dlq.Entry
	require.NoError(t, json.Unmarshal(text, &stored))
	if len(entry.Envelope.History) == 0 {
		entry.Envelope.History = nil
	}
	if len(entry.Raw) == 0 {
		entry.Raw, stored.Raw = nil, nil
	}
	require.Equal(t, entry, stored)
}

// requireBounded checks what a store of records or dead letters relies on.
func requireBounded(t require.TestingT, e *delivery.Envelope) {
	require.LessOrEqual(t, max(len(e.Recipient), len(e.Subject), len(e.IdempotencyKey)), delivery.MaxAttributeBytes)
	require.LessOrEqual(t, max(len(e.ID), len(e.Type), len(e.ContentType)), delivery.MaxIDBytes)
	require.True(t, e.Priority.Valid())
	counts := []int{e.Attempt, e.Generation}
	times := []time.Time{e.CreatedAt, e.NotBefore, e.ExpiresAt}
	require.LessOrEqual(t, len(e.History), delivery.MaxHistory)
	for _, failure := range e.History {
		counts = append(counts, failure.Attempt)
		times = append(times, failure.At)
		require.LessOrEqual(t, len(failure.Error), maxFailureBytes)
		require.Equal(t, strings.ToValidUTF8(failure.Error, ""), failure.Error)
	}
	for _, count := range counts {
		require.True(t, count >= 0 && count <= math.MaxInt32, count)
	}
	for _, at := range times {
		require.True(t, at.IsZero() || at.Year() >= 1677 && at.Year() <= 2262, at)
		require.Equal(t, time.UTC, at.Location())
	}
	size := 0
	for name, value := range e.Headers {
		require.True(t, name != "" && len(name) <= delivery.MaxIDBytes, "%.300q", name)
		size += len(name) + len(value)
	}
	require.LessOrEqual(t, size, delivery.MaxHeaderBytes)
}

// hostileHeaders are values of the right type that no process of ours writes.
func hostileHeaders() map[string][]any {
	list := func(n int, item string) string { return strings.Repeat(item, n) }
	numbers := []any{int64(math.MaxInt64), int64(math.MinInt64), int64(math.MaxInt32), int64(math.MaxInt32 - 1), int64(-1), int64(128), byte(255), "2"}
	texts := []any{list(2000, "ä"), list(100_000, "r"), "\xff\x00", "", int32(5)}
	return map[string][]any{
		headerRecipient: append(texts, "you", "you"), headerKey: texts, headerSubject: texts,
		headerPriority: numbers, headerAttempt: numbers, headerGeneration: numbers,
		headerCreated: numbers, headerNotBefore: numbers, headerExpires: numbers, headerDue: numbers,
		headerHistory: {
			`[{"at":"9999-12-31T23:59:59-23:59","attempt":0,"error":"x"}]`,
			`[{"at":"0000-01-01T00:00:00+23:59","error":"x"}]`,
			`[{"at":"2020-01-01T00:00:00+05:00","attempt":9223372036854775807,"error":"` + list(5000, `\u0001`) + `"}]`,
			`[{"at":"2020-01-01T00:00:00-05:00","attempt":3,"error":"` + list(5000, `ä`) + `"}]`,
			`[{"attempt":-1,"error":"\ud800"}]`, `[null]`, `null`, `{}`, `[{"error":"` + "\xff\x00" + `"}]`,
			"[" + strings.TrimSuffix(list(3000, `{"error":"x"},`), ",") + "]",
		},
		headerReserved: {
			list(13_000, "1:a0:"), "0:1:a", "256:" + list(256, "n") + "1:a", "1:a70000:" + list(70_000, "v"), "1:a",
			list(1, "9223372036854775807:a1:b"), "-1:a", "4:host5:value",
		},
		headerDeadID:     {"", list(2000, "i"), "letter"},
		headerDeadReason: {"", list(2000, "r"), "exhausted", "malformed"},
		headerDeadError:  {list(9000, "e")},
		headerDeadSource: {list(2000, "s")},
		headerDeadAt:     numbers,
		headerDeadFacts:  {list(20_000, "1:a1:b"), "x"},
		"x-death":        {[]any{amqp.Table{"time": time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), "count": int64(-1)}}, []any{"x"}},
		"":               {"empty"},
		"host":           {list(70_000, "h"), "h", int32(1)},
	}
}

func TestWhateverIsDecodedCanGoOn(t *testing.T) {
	values := hostileHeaders()
	for name := range values {
		for _, value := range values[name] {
			requireCanGoOn(t, &amqp.Delivery{
				MessageId: "1", Body: []byte("body"), Headers: amqp.Table{headerRecipient: "you", name: value},
			})
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := &amqp.Delivery{
			MessageId: rapid.StringN(0, 20, delivery.MaxIDBytes).Draw(t, "id"),
			Body:      []byte("body"),
			Headers:   amqp.Table{headerRecipient: "you"},
			Timestamp: time.Unix(rapid.Int64().Draw(t, "timestamp"), 0),
		}
		for name := range values {
			if rapid.IntRange(0, 3).Draw(t, name) == 0 {
				d.Headers[name] = rapid.SampledFrom(values[name]).Draw(t, name)
			}
		}
		requireCanGoOn(t, d)
	})
}

// Names and values in the header barid-headers take less room there than as headers
// of their own.
func TestDecodeBoundsHeadersByWhatWouldBeSent(t *testing.T) {
	var list []byte
	for i := range 12_000 {
		list = appendString(appendString(list, string([]byte{byte(i%200 + 1), byte(i/200 + 1), 'n'})), "")
	}
	_, err := testLimits.decode(&amqp.Delivery{
		MessageId: "1", Headers: amqp.Table{headerRecipient: "you", headerReserved: string(list)},
	})
	require.ErrorIs(t, err, delivery.ErrMalformed)
	require.ErrorContains(t, err, "headers have")
}
