package retry

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// maxRetryAfter is the longest wait that a Retry-After header can ask for. Longer
// ones are shortened to it.
const maxRetryAfter = 365 * 24 * time.Hour

// errNoResponse is FromResponse's error for a nil response.
var errNoResponse = errors.New("retry: no HTTP response")

// HTTPError is an HTTP server's answer that means failure. Classifier knows it by
// StatusCode, DelayOf by RetryDelay. It holds nothing of the request and nothing of
// the body.
type HTTPError struct {
	// Status is the status code, such as 503.
	Status int
	// RetryAfter is the wait that the server asked for, at least 0 and at most a
	// year. It counts only with HasRetryAfter.
	RetryAfter time.Duration
	// HasRetryAfter is false where the server has not asked for a wait; it may also
	// ask for one of 0.
	HasRetryAfter bool
}

func (e *HTTPError) Error() string {
	text := fmt.Sprintf("retry: HTTP status %d", e.StatusCode())
	if name := http.StatusText(e.StatusCode()); name != "" {
		text += " " + name
	}
	if wait, ok := e.RetryDelay(); ok {
		text += ", retry after " + wait.String()
	}
	return text
}

// StatusCode is Status.
func (e *HTTPError) StatusCode() int {
	if e == nil {
		return 0
	}
	return e.Status
}

// RetryDelay is RetryAfter and HasRetryAfter.
func (e *HTTPError) RetryDelay() (time.Duration, bool) {
	if e == nil || !e.HasRetryAfter {
		return 0, false
	}
	return e.RetryAfter, true
}

// FromResponse returns nil for a status below 400, and otherwise an *HTTPError with
// the status and the wait that a Retry-After header asks for (RFC 9110, section
// 10.2.3), in seconds or by a date. Fractions of seconds, which the RFC does not know but
// servers send, are rounded up. A date counts from the response's own Date
// header, if that can be read, so that a wrong clock on either side doesn't matter,
// and otherwise from now. A date in the past, and what can't be read, are ignored.
// Waits above a year are shortened to it.
//
// A nil response is an error as well. The body is neither read nor closed nor kept:
// it stays the caller's.
func FromResponse(response *http.Response) error {
	if response == nil {
		return errNoResponse
	}
	if response.StatusCode < http.StatusBadRequest {
		return nil
	}
	wait, ok := parseRetryAfter(response.Header.Get("Retry-After"), response.Header.Get("Date"), time.Now())
	return &HTTPError{Status: response.StatusCode, RetryAfter: wait, HasRetryAfter: ok}
}

// parseRetryAfter reads the value of a Retry-After header. date is the value
// of the Date header beside it.
func parseRetryAfter(value, date string, now time.Time) (time.Duration, bool) {
	value = strings.Trim(value, " \t")
	if wait, ok := parseSeconds(value); ok {
		return wait, true
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if sent, err := http.ParseTime(strings.Trim(date, " \t")); err == nil {
		now = sent
	}
	wait := until.Sub(now) // saturates
	if wait < 0 {
		return 0, false
	}
	return min(wait, maxRetryAfter), true
}

// parseSeconds reads RFC 9110's delay-seconds: one or more digits, however many,
// and nothing else but a fraction, of which any part of a second is a whole one.
func parseSeconds(value string) (time.Duration, bool) {
	value, fraction, hasFraction := strings.Cut(value, ".")
	if !isDigits(value) || hasFraction && !isDigits(fraction) {
		return 0, false
	}
	const limit = int64(maxRetryAfter / time.Second)
	var seconds int64
	for _, digit := range []byte(value) {
		if seconds <= limit { // more digits change nothing
			seconds = seconds*10 + int64(digit-'0')
		}
	}
	if strings.Trim(fraction, "0") != "" {
		seconds++
	}
	return time.Duration(min(seconds, limit)) * time.Second, true
}

func isDigits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}
