package delivery

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func valid() Message { return Message{ID: "m-1", Recipient: "+966500000001"} }

func TestMessageValidate(t *testing.T) {
	require.NoError(t, new(valid()).Validate())
	for name, test := range map[string]struct {
		change func(*Message)
		is     error
		says   string
	}{
		"no ID":             {func(m *Message) { m.ID = "" }, ErrInvalid, "message ID is empty"},
		"no recipient":      {func(m *Message) { m.Recipient = "" }, ErrInvalid, "message Recipient is empty"},
		"unknown priority":  {func(m *Message) { m.Priority = 3 }, ErrInvalid, "message Priority is 3, want -1 to 2"},
		"long ID":           {func(m *Message) { m.ID = strings.Repeat("x", 256) }, ErrTooLarge, "message ID has 256 bytes, at most 255 are allowed"},
		"long type":         {func(m *Message) { m.Type = strings.Repeat("x", 256) }, ErrTooLarge, "message Type has 256 bytes"},
		"long content type": {func(m *Message) { m.ContentType = strings.Repeat("x", 256) }, ErrTooLarge, "message ContentType has 256 bytes"},
		"long recipient":    {func(m *Message) { m.Recipient = strings.Repeat("x", 1025) }, ErrTooLarge, "message Recipient has 1025 bytes, at most 1024 are allowed"},
		"long subject":      {func(m *Message) { m.Subject = strings.Repeat("x", 1025) }, ErrTooLarge, "message Subject"},
		"long key":          {func(m *Message) { m.IdempotencyKey = strings.Repeat("x", 1025) }, ErrTooLarge, "message IdempotencyKey"},
		"empty header key":  {func(m *Message) { m.Headers = map[string]string{"": "v"} }, ErrInvalid, "message Headers has an empty key"},
		"long header key": {func(m *Message) { m.Headers = map[string]string{strings.Repeat("k", 256): "v"} }, ErrTooLarge,
			`key has 256 bytes, at most 255 are allowed`},
		"large headers": {func(m *Message) { m.Headers = map[string]string{"k": strings.Repeat("v", MaxHeaderBytes)} }, ErrTooLarge,
			"message Headers has 65537 bytes, at most 65536 are allowed"},
		"far future": {func(m *Message) { m.ExpiresAt = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) }, ErrInvalid, "message ExpiresAt is 2300-01-01"},
		"ends before it begins": {func(m *Message) {
			m.NotBefore = time.Unix(200, 0)
			m.ExpiresAt = time.Unix(100, 0)
		}, ErrInvalid, "message ExpiresAt is before NotBefore"},
	} {
		t.Run(name, func(t *testing.T) {
			message := valid()
			test.change(&message)
			err := message.Validate()
			require.ErrorIs(t, err, test.is)
			require.ErrorIs(t, err, ErrInvalid, "a message that is too large is invalid too")
			assert.ErrorContains(t, err, test.says)
		})
	}
	t.Run("all faults at once", func(t *testing.T) {
		err := (&Message{Priority: 9, Subject: strings.Repeat("x", 2000)}).Validate()
		for _, says := range []string{"ID is empty", "Recipient is empty", "Priority is 9", "Subject has 2000 bytes"} {
			require.ErrorContains(t, err, says)
		}
		var large *TooLargeError
		require.ErrorAs(t, err, &large)
		assert.Equal(t, TooLargeError{Field: "Subject", Size: 2000, Limit: 1024}, *large)
	})
	t.Run("a secret of a header is not in the error", func(t *testing.T) {
		err := (&Message{ID: "a", Recipient: "b", Headers: map[string]string{"": "hunter2", "k": strings.Repeat("hunter2", 10_000)}}).Validate()
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "hunter2")
	})
}

func TestMessageKey(t *testing.T) {
	assert.Equal(t, "m-1", (&Message{ID: "m-1"}).Key())
	assert.Equal(t, "k", (&Message{ID: "m-1", IdempotencyKey: "k"}).Key())
}

func TestMessageExpired(t *testing.T) {
	now := time.Unix(1000, 0)
	assert.False(t, new(valid()).Expired(now), "without ExpiresAt never")
	assert.False(t, (&Message{ExpiresAt: now.Add(1)}).Expired(now))
	assert.True(t, (&Message{ExpiresAt: now}).Expired(now))
}

func TestNewIDSortsByTime(t *testing.T) {
	last := ""
	for range 1000 {
		id := NewID()
		require.Less(t, last, id)
		last = id
	}
}

func TestPriority(t *testing.T) {
	var zero Priority
	assert.Equal(t, Normal, zero)
	for _, p := range Priorities() {
		text, err := json.Marshal(p)
		require.NoError(t, err)
		var back Priority
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, p, back)
	}
	parsed, err := ParsePriority("URGENT")
	require.NoError(t, err)
	assert.Equal(t, Urgent, parsed)
	_, err = ParsePriority("asap")
	require.ErrorIs(t, err, ErrInvalid)
	_, err = Priority(7).MarshalText()
	require.ErrorIs(t, err, ErrInvalid)
	assert.Equal(t, "Priority(7)", Priority(7).String())
}

func TestStatusMovesForwardOnly(t *testing.T) {
	order := []Status{StatusPending, StatusQueued, StatusSent, StatusDelivered, StatusRead}
	for i, from := range order {
		for k, to := range order {
			assert.Equal(t, i < k, from.canBecome(to), "%s to %s", from, to)
		}
	}
	assert.True(t, StatusFailed.canBecome(StatusDelivered), "a late acknowledgment")
	assert.True(t, StatusRetrying.canBecome(StatusRetrying), "one failure after the other")
	assert.False(t, StatusDelivered.canBecome(StatusRetrying))
	assert.True(t, StatusRead.Valid())
	assert.False(t, Status("").Valid())
	assert.False(t, Status("").canBecome(StatusQueued))
}

func TestEnvelopeFailed(t *testing.T) {
	envelope := Envelope{Message: valid()}
	for n := range 15 {
		before := envelope
		next := envelope.failed(time.Unix(int64(n), 0), errors.New(strings.Repeat("é", n*100)))
		assert.Equal(t, before, envelope, "the original is as it was, for a settle that is tried again")
		envelope = next
	}
	assert.Equal(t, 15, envelope.Attempt)
	require.Len(t, envelope.History, MaxHistory)
	assert.Equal(t, 6, envelope.History[0].Attempt, "from 1, and the oldest are forgotten")
	assert.Equal(t, 15, envelope.History[9].Attempt)
	for _, failure := range envelope.History {
		assert.LessOrEqual(t, len(failure.Error), maxFailureBytes+len("…"))
		assert.NotContains(t, failure.Error, "\ufffd", "cut between runes")
	}
}

func TestDeadLetterIDs(t *testing.T) {
	now := time.Unix(1, 0)
	envelope := Envelope{Message: valid()}
	letter := newDeadLetter("orders", &envelope, ReasonPermanent, errors.New("no"), now)
	assert.Equal(t, letter.ID, newDeadLetter("orders", &envelope, ReasonExhausted, nil, now).ID, "a repeated put is the same letter")
	assert.NotEqual(t, letter.ID, newDeadLetter("other", &envelope, ReasonPermanent, nil, now).ID)
	replayed := envelope
	replayed.Generation++
	assert.NotEqual(t, letter.ID, newDeadLetter("orders", &replayed, ReasonPermanent, nil, now).ID, "a replay that fails is a new letter")
	malformed := newDeadLetter("orders", &Envelope{}, ReasonMalformed, nil, now)
	assert.NotEqual(t, malformed.ID, newDeadLetter("orders", &Envelope{}, ReasonMalformed, nil, now).ID, "malformed ones have no identity")
}

func TestErrors(t *testing.T) {
	for _, test := range []struct{ err, is error }{
		{&InvalidError{Field: "ID", Problem: "is empty"}, ErrInvalid},
		{&TooLargeError{Field: "Body", Size: 2, Limit: 1}, ErrTooLarge},
		{&TooLargeError{Field: "Body", Size: 2, Limit: 1}, ErrInvalid},
		{&DuplicateError{Of: "m-1"}, ErrDuplicate},
		{&MalformedError{Problem: "no ID"}, ErrMalformed},
		{&ResultsError{Results: []Result{{ID: "a"}, {ID: "b", Err: ErrUnroutable}}}, ErrUnroutable},
		{&PanicError{Value: ErrBlocked}, ErrBlocked},
	} {
		require.ErrorIs(t, test.err, test.is)
		require.NotErrorIs(t, test.err, ErrClosed)
		assert.NotEmpty(t, test.err.Error())
	}
	many := &ResultsError{Results: make([]Result, 10)}
	for i := range many.Results {
		many.Results[i].Err = ErrRefused
	}
	require.ErrorContains(t, many, "10 of 10 failed")
	require.ErrorContains(t, many, "and 7 more")
	assert.Contains(t, (&PanicError{Value: "boom"}).Error(), "boom")
}
