package dlq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// asJSON is a store that keeps entries as their JSON, as databases do.
type asJSON struct {
	*dlq.Memory
	puts   int
	refuse func(entry *dlq.Entry) error // nil refuses none
}

func (s *asJSON) Put(ctx context.Context, entries ...dlq.Entry) error {
	s.puts++
	var back []dlq.Entry
	for i := range entries {
		if s.refuse != nil {
			if err := s.refuse(&entries[i]); err != nil {
				return err
			}
		}
		text, err := json.Marshal(entries[i])
		if err != nil {
			return fmt.Errorf("%w: %w", dlq.ErrInvalid, err)
		}
		var entry dlq.Entry
		if err := json.Unmarshal(text, &entry); err != nil {
			return err
		}
		back = append(back, entry)
	}
	return s.Memory.Put(ctx, back...)
}

func get(t *testing.T, manager *dlq.Manager, id string) dlq.Entry {
	t.Helper()
	entries, err := manager.Get(t.Context(), id)
	require.NoError(t, err)
	return entries[0]
}

// Whatever a letter has, it can be kept.
func TestEntriesAreBounded(t *testing.T) {
	store := &asJSON{Memory: dlq.NewMemory(dlq.MemoryConfig{})}
	sender := &sender{}
	manager := dlq.NewManager(store, sender, dlq.Config{})
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("west", -86340))
	hostile := letter("a")
	hostile.At = far
	hostile.Error = strings.Repeat("é", dlq.MaxErrorBytes)
	envelope := &hostile.Envelope
	envelope.Attempt, envelope.Generation = math.MaxInt, math.MaxInt
	envelope.CreatedAt, envelope.NotBefore, envelope.ExpiresAt = far, time.Unix(math.MinInt64/2, 0), far
	envelope.Recipient, envelope.Headers = "\xff", map[string]string{"\xfe": "\x00"}
	envelope.History = nil
	for range delivery.MaxHistory + 5 {
		envelope.History = append(envelope.History, delivery.Failure{At: far, Attempt: math.MaxInt, Error: hostile.Error})
	}
	envelope.History[14].Attempt = math.MinInt
	given := fmt.Sprintf("%v", hostile)
	require.NoError(t, manager.DeadLetter(t.Context(), letter("b"), hostile))
	assert.Equal(t, given, fmt.Sprintf("%v", hostile), "the caller's letter stays as it is")
	assert.Equal(t, 1, store.puts)

	latest := time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	entry := get(t, manager, "a")
	assert.Equal(t, latest, entry.DeadAt)
	assert.Equal(t, latest, entry.FirstFailedAt)
	assert.Equal(t, strings.Repeat("é", dlq.MaxErrorBytes/2), entry.Error)
	assert.Equal(t, []int{dlq.MaxCounter, dlq.MaxCounter}, []int{entry.Envelope.Attempt, entry.Envelope.Generation})
	assert.Equal(t, []time.Time{latest, {}, latest}, []time.Time{entry.Envelope.CreatedAt, entry.Envelope.NotBefore, entry.Envelope.ExpiresAt})
	require.Len(t, entry.Envelope.History, delivery.MaxHistory)
	assert.Equal(t, delivery.Failure{At: latest, Attempt: dlq.MaxCounter, Error: entry.Error}, entry.Envelope.History[0])
	assert.Zero(t, entry.Envelope.History[9].Attempt)
	assert.Equal(t, "\xff", entry.Envelope.Recipient, "bytes stay as they were")

	results, err := manager.Requeue(t.Context(), "a", "b")
	require.ErrorIs(t, err, dlq.ErrNotReplayable)
	require.ErrorIs(t, results[0].Err, dlq.ErrNotReplayable)
	require.NoError(t, results[1].Err)
}

// A store that refuses an entry would refuse it for ever.
func TestARefusedLetterIsPutStripped(t *testing.T) {
	for _, refusal := range []error{dlq.ErrInvalid, delivery.ErrInvalid, delivery.ErrTooLarge} {
		var events log
		store := &asJSON{Memory: dlq.NewMemory(dlq.MemoryConfig{}), refuse: func(entry *dlq.Entry) error {
			if entry.ID != "good" && (len(entry.Envelope.History) > 0 || !utf8.ValidString(entry.Envelope.Recipient)) {
				return fmt.Errorf("%w: no\nhistory", refusal)
			}
			return nil
		}}
		manager := dlq.NewManager(store, &sender{}, dlq.Config{Logger: events.logger()})
		odd := letter("odd\n")
		odd.Envelope.Recipient, odd.Envelope.Headers = "r\xff", map[string]string{"k\x00": "v"}
		require.NoError(t, manager.DeadLetter(t.Context(), letter("good"), letter("bad"), odd))
		assert.Equal(t, 6, store.puts)

		assert.Equal(t, delivery.ReasonExhausted, get(t, manager, "good").Reason)
		bad := get(t, manager, "bad")
		assert.Equal(t, []byte("secret-body"), bad.Raw)
		assert.Equal(t, delivery.ReasonMalformed, bad.Reason)
		assert.Equal(t, map[string]string{dlq.FactReason: "exhausted"}, bad.Facts)
		assert.Contains(t, bad.Error, "no\uFFFDhistory): secret-error 2")
		assert.Equal(t, delivery.Envelope{
			Message: delivery.Message{ID: "message of bad", Recipient: "secret-recipient", Type: "sms"}, Attempt: 3,
		}, bad.Envelope)
		assert.Equal(t, noon, bad.DeadAt)
		page, err := manager.List(t.Context(), dlq.Query{Filter: dlq.Filter{Recipient: "r\uFFFD"}})
		require.NoError(t, err)
		require.Len(t, page.Entries, 1)
		assert.Equal(t, map[string]string{"k\uFFFD": "v"}, page.Entries[0].Envelope.Headers)
		_, err = manager.Requeue(t.Context(), "bad")
		require.ErrorIs(t, err, dlq.ErrNotReplayable, "it is not what was to be sent")

		require.NoError(t, manager.DeadLetter(t.Context(), letter("bad")))
		assert.Equal(t, 8, store.puts, "what is put again is stripped again, in two calls")
	}
}

func TestALetterIsStrippedOnce(t *testing.T) {
	store := &asJSON{Memory: dlq.NewMemory(dlq.MemoryConfig{}), refuse: func(*dlq.Entry) error { return dlq.ErrInvalid }}
	require.ErrorIs(t, dlq.NewManager(store, nil, dlq.Config{}).DeadLetter(t.Context(), letter("a")), dlq.ErrInvalid)
	assert.Equal(t, 2, store.puts)

	down := errors.New("down")
	store = &asJSON{Memory: dlq.NewMemory(dlq.MemoryConfig{}), refuse: func(*dlq.Entry) error { return down }}
	require.ErrorIs(t, dlq.NewManager(store, nil, dlq.Config{}).DeadLetter(t.Context(), letter("a"), letter("b")), down)
	assert.Equal(t, 1, store.puts, "an outage is no refusal")
}

// FuzzDeadLetter has a letter become an entry, JSON, an entry again, and a message.
func FuzzDeadLetter(f *testing.F) {
	f.Add("id", "recipient", "error", []byte("body"), int64(1), int64(0), int64(2), int64(3), int8(0))
	f.Add("\xff", "base64:", "a \xff\x00 b", []byte(nil), int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MinInt64), int64(253402300800), int8(-7))
	f.Fuzz(func(t *testing.T, id, text, failure string, body []byte, attempt, generation, seconds, more int64, priority int8) {
		moment := time.Unix(seconds, more)
		given := delivery.DeadLetter{
			ID: "x" + id, Reason: delivery.Reason(text), Error: failure, Source: text, Raw: body, At: moment, Facts: map[string]string{text: failure},
			Envelope: delivery.Envelope{
				Message: delivery.Message{
					ID: id, IdempotencyKey: text, Recipient: text, Subject: failure, Type: text, ContentType: text, Body: body,
					Headers: map[string]string{text: failure}, Priority: delivery.Priority(priority),
					CreatedAt: moment, NotBefore: time.Unix(more, seconds), ExpiresAt: moment,
				},
				Attempt: int(attempt), Generation: int(generation),
				History: []delivery.Failure{{At: moment, Attempt: int(attempt), Error: failure}, {At: time.Unix(more, 0), Attempt: int(more), Error: text}},
			},
		}
		ctx := t.Context()
		sender := &sender{}
		store := &asJSON{Memory: dlq.NewMemory(dlq.MemoryConfig{})}
		manager := dlq.NewManager(store, sender, dlq.Config{})
		require.NoError(t, manager.DeadLetter(ctx, given))
		require.Equal(t, 1, store.puts, "nothing has to be stripped")
		entry := get(t, manager, given.ID)
		require.Equal(t, []string{id, text, text}, []string{entry.Envelope.ID, entry.Envelope.Recipient, entry.Source})
		require.Equal(t, string(body), string(entry.Envelope.Body))

		_, err := manager.Requeue(ctx, given.ID)
		if err != nil {
			require.ErrorIs(t, err, dlq.ErrNotReplayable)
			return
		}
		next := sender.sent()[0]
		require.NoError(t, next.Validate())
		require.Equal(t, entry.Envelope.Generation+1, next.Generation)
		again := given
		again.Envelope = next
		require.NoError(t, manager.DeadLetter(ctx, again))
		require.Equal(t, next.Generation, get(t, manager, given.ID).Envelope.Generation)
	})
}
