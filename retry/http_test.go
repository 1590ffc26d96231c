package retry

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const sent = "Sun, 01 Mar 2026 11:00:00 GMT" // an hour behind now
	for name, test := range map[string]struct {
		value, date string
		want        time.Duration
		ok          bool
	}{
		"none":                   {"", "", 0, false},
		"seconds":                {"120", "", 2 * time.Minute, true},
		"seconds ignore Date":    {"120", sent, 2 * time.Minute, true},
		"zero":                   {"0", "", 0, true},
		"leading zeros":          {"000000000000000000000000000000007", "", 7 * time.Second, true},
		"spaces around":          {" \t30 ", "", 30 * time.Second, true},
		"the maximum":            {"31536000", "", maxRetryAfter, true},
		"above the maximum":      {"31536001", "", maxRetryAfter, true},
		"overflows a Duration":   {"9223372037", "", maxRetryAfter, true},
		"overflows 64 bits":      {"18446744073709551621", "", maxRetryAfter, true},
		"a thousand digits":      {strings.Repeat("9", 1000), "", maxRetryAfter, true},
		"negative":               {"-5", "", 0, false},
		"plus":                   {"+5", "", 0, false},
		"fraction":               {"1.5", "", 2 * time.Second, true},
		"fraction, small":        {"0.0001", "", time.Second, true},
		"fraction of nothing":    {"3.000", "", 3 * time.Second, true},
		"fraction, maximum":      {"31536000.1", "", maxRetryAfter, true},
		"fraction alone":         {".5", "", 0, false},
		"point at the end":       {"1.", "", 0, false},
		"two points":             {"1.5.2", "", 0, false},
		"comma":                  {"1,5", "", 0, false},
		"exponent":               {"1e3", "", 0, false},
		"underscore":             {"1_0", "", 0, false},
		"unit":                   {"5s", "", 0, false},
		"two":                    {"5, 6", "", 0, false},
		"garbage":                {"soon", "", 0, false},
		"other digits":           {"٣", "", 0, false},
		"date, to now":           {"Sun, 01 Mar 2026 12:00:30 GMT", "", 30 * time.Second, true},
		"date, to Date":          {"Sun, 01 Mar 2026 12:00:30 GMT", sent, time.Hour + 30*time.Second, true},
		"date, Date unreadable":  {"Sun, 01 Mar 2026 12:00:30 GMT", "yesterday", 30 * time.Second, true},
		"date before now, Date":  {"Sun, 01 Mar 2026 11:30:00 GMT", sent, 30 * time.Minute, true},
		"date before now":        {"Sun, 01 Mar 2026 11:30:00 GMT", "", 0, false},
		"date is now":            {"Sun, 01 Mar 2026 12:00:00 GMT", "", 0, true},
		"date before Date":       {"Sun, 01 Mar 2026 10:59:59 GMT", sent, 0, false},
		"RFC 850 date":           {"Sunday, 01-Mar-26 12:00:30 GMT", "", 30 * time.Second, true},
		"asctime date":           {"Sun Mar  1 12:00:30 2026", "", 30 * time.Second, true},
		"far future":             {"Fri, 31 Dec 9999 23:59:59 GMT", "", maxRetryAfter, true},
		"far future, old Date":   {"Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", maxRetryAfter, true},
		"ISO date isn't allowed": {"2026-03-01T12:00:30Z", "", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			wait, ok := parseRetryAfter(test.value, test.date, now)
			assert.Equal(t, test.ok, ok)
			assert.Equal(t, test.want, wait)
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, value := range []string{
		"", "0", "120", "-1", "+1", " 7\t", "31536001", "9223372037", "18446744073709551621", "1e9", "0x10",
		"Sun, 01 Mar 2026 12:00:30 GMT", "Sunday, 01-Mar-26 12:00:30 GMT", "Sun Mar  1 12:00:30 2026",
		"Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Sun, 01 Mar 2026 12:00:30 +0300", "soon",
	} {
		for _, date := range []string{"", "Sun, 01 Mar 2026 11:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "never"} {
			f.Add(value, date)
		}
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		wait, ok := parseRetryAfter(value, date, now)
		if wait < 0 || wait > maxRetryAfter {
			t.Errorf("%q with Date %q waits %v", value, date, wait)
		}
		if !ok && wait != 0 {
			t.Errorf("%q with Date %q is ignored but waits %v", value, date, wait)
		}
		if ok && strings.ContainsAny(value, "-+") && !strings.Contains(value, ":") {
			t.Errorf("%q is no number of seconds but waits %v", value, wait)
		}
		if again, okAgain := parseRetryAfter(" "+value+" ", date, now); again != wait || okAgain != ok {
			t.Errorf("%q waits %v, %v with spaces around", value, wait, again)
		}
	})
}

// untouchable is a body that must be left alone.
type untouchable struct{ t *testing.T }

func (b untouchable) Read([]byte) (int, error) {
	b.t.Error("read")
	return 0, io.EOF
}

func (b untouchable) Close() error {
	b.t.Error("closed")
	return nil
}

func TestFromResponse(t *testing.T) {
	answered := func(status int, header http.Header) error {
		return FromResponse(&http.Response{StatusCode: status, Header: header, Body: untouchable{t}})
	}
	require.Error(t, FromResponse(nil))
	for _, status := range []int{0, 100, 200, 204, 301, 399} {
		require.NoError(t, answered(status, nil))
	}

	err := answered(400, nil)
	require.EqualError(t, err, "retry: HTTP status 400 Bad Request")
	_, ok := DelayOf(err)
	assert.False(t, ok)
	assert.Equal(t, ClassPermanent, Classifier{}.Classify(err))

	err = answered(503, http.Header{"Retry-After": {"120"}})
	require.EqualError(t, err, "retry: HTTP status 503 Service Unavailable, retry after 2m0s")
	var typed *HTTPError
	require.ErrorAs(t, err, &typed)
	assert.Equal(t, HTTPError{Status: 503, RetryAfter: 2 * time.Minute, HasRetryAfter: true}, *typed)
	assert.Equal(t, 503, typed.StatusCode())
	wait, ok := DelayOf(err)
	assert.True(t, ok)
	assert.Equal(t, 2*time.Minute, wait)
	assert.Equal(t, ClassRecoverable, Classifier{}.Classify(err))

	require.EqualError(t, answered(799, nil), "retry: HTTP status 799")
	require.EqualError(t, (*HTTPError)(nil), "retry: HTTP status 0")
}

func TestFromResponseTakesADateToNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
		wait, ok := DelayOf(FromResponse(&http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {at}}}))
		assert.True(t, ok)
		assert.Equal(t, 90*time.Second, wait)
	})
}
