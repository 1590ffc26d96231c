package redisstore

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// answer is what HMGET of hashFields returns after arguments were put.
func answer(r *entryHash) []any {
	var values []any
	for _, argument := range r.arguments()[1:] {
		values = append(values, fmt.Sprintf("%s", argument))
	}
	return values
}

func TestRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "text")) })
		at := rapid.Custom(func(t *rapid.T) time.Time {
			return time.UnixMicro(rapid.Int64Range(-62135596800_000_000, 253402300799_999_999).Draw(t, "at")).UTC()
		})
		want := dlq.Entry{
			ID: "id" + text.Draw(t, "id"), Reason: delivery.Reason(text.Draw(t, "reason")), Error: text.Draw(t, "error"),
			Fingerprint: text.Draw(t, "fingerprint"), Source: text.Draw(t, "source"), Raw: []byte(text.Draw(t, "raw")),
			FirstFailedAt: at.Draw(t, "first"), DeadAt: at.Draw(t, "dead"),
		}
		want.Envelope.Message = delivery.Message{
			ID: text.Draw(t, "message"), Recipient: text.Draw(t, "recipient"), Type: text.Draw(t, "type"),
			Subject: text.Draw(t, "subject"), Body: []byte(text.Draw(t, "body")), Headers: map[string]string{text.Draw(t, "key"): text.Draw(t, "value")},
		}
		r, err := newEntryHash(&want)
		require.NoError(t, err)
		got, place, found, err := parseEntry(want.ID, answer(&r))
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, r.at, place)
		wantText, err := json.Marshal(want)
		require.NoError(t, err)
		gotText, err := json.Marshal(got)
		require.NoError(t, err)
		require.JSONEq(t, string(wantText), string(gotText))
	})
}

// Places sort as their times do, and come back.
func TestPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, two := rapid.Int64().Draw(t, "one"), rapid.Int64().Draw(t, "two")
		first, second := placeOf(time.UnixMicro(one)), placeOf(time.UnixMicro(two))
		const years = 290_000 * 365 * 86_400 * 1_000_000
		if max(one, two) < years && min(one, two) > -years {
			require.Equal(t, one < two, strings.Compare(first, second) < 0)
			at, err := timeOf(first)
			require.NoError(t, err)
			require.Equal(t, one, at.UnixMicro())
		}
	})
	require.Equal(t, "ffffffffffffffff", placeOf(time.Unix(1<<60, 0)))
	require.Equal(t, "0000000000000000", placeOf(time.Unix(-1<<60, 0)))
	for _, bad := range []string{"", "8", "x000000000000000", "80000000000000000"} {
		_, err := timeOf(bad)
		require.ErrorIs(t, err, ErrDamaged)
	}
}

func FuzzParse(f *testing.F) {
	r, err := newEntryHash(&dlq.Entry{ID: "id", DeadAt: time.Unix(0, 0)})
	require.NoError(f, err)
	f.Add(r.at, r.rest)
	f.Add("8000000000000000", []byte("{}"))
	f.Add("x", []byte("s3cret"))
	f.Fuzz(func(t *testing.T, at string, rest []byte) {
		values := []any{at, nil, "recipient", "type", "fingerprint", "source", "error", "1", string(rest), "body"}
		entry, place, found, err := parseEntry("id", values)
		require.Equal(t, at != "", found)
		require.Equal(t, at, place)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			require.Equal(t, "dlq/redisstore: entry can't be read: id", err.Error())
		} else if found {
			require.Equal(t, "id", entry.ID)
			require.Equal(t, "recipient", entry.Envelope.Recipient)
		}
		_, _ = parseHead("id", values)
	})
}

func TestStrangeAnswers(t *testing.T) {
	for _, strange := range [][]any{
		nil,
		{int64(1)},
		{int64(1), "0x000000000000000id", []any{}, []any{}, []any{}, []any{}},
		{"1", 2.5, "reasons", nil, []any{"fingerprint"}, nil, nil},
	} {
		_, _, err := parseStats(strange)
		require.Error(t, err)
	}
	stats, newest, err := parseStats([]any{int64(1), "", nil, nil, []any{"fingerprint"}, nil})
	require.NoError(t, err)
	require.Equal(t, []dlq.FingerprintCount{{Fingerprint: "fingerprint"}}, stats.Fingerprints)
	require.Equal(t, []string{""}, newest)
	require.ErrorIs(t, errorOf("remove", 99), ErrUnavailable)
}
