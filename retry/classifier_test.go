package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type statusError int

func (e statusError) Error() string   { return fmt.Sprintf("status %d", int(e)) }
func (e statusError) StatusCode() int { return int(e) }

type stateError string

func (e stateError) Error() string    { return "SQLSTATE " + string(e) }
func (e stateError) SQLState() string { return string(e) }

// moderncError looks like the *Error of modernc.org/sqlite.
type moderncError struct {
	text string
	code int
}

func (e *moderncError) Error() string { return e.text }
func (e *moderncError) Code() int     { return e.code }

// mattnError looks like the Error of mattn/go-sqlite3.
type mattnError struct {
	Code mattnCode
	text string
}

type mattnCode int

func (e mattnError) Error() string { return e.text }

func TestClassify(t *testing.T) {
	plain := errors.New("plain")
	for name, test := range map[string]struct {
		err  error
		want Class
	}{
		"nil":     {nil, ClassRecoverable},
		"unknown": {plain, ClassRecoverable},

		"permanent":                {Permanent(plain), ClassPermanent},
		"after":                    {After(time.Second, plain), ClassRecoverable},
		"mark over what it marks":  {Permanent(io.EOF), ClassPermanent},
		"after over what it marks": {After(time.Second, statusError(404)), ClassRecoverable},
		"outer mark: after":        {After(time.Second, Permanent(plain)), ClassRecoverable},
		"outer mark: permanent":    {Permanent(After(time.Second, plain)), ClassPermanent},
		"later":                    {fmt.Errorf("x: %w", Later(time.Hour, statusError(404))), ClassLater},
		"outer mark: later":        {Later(time.Second, Permanent(plain)), ClassLater},
		"later, marked otherwise":  {After(time.Second, Later(time.Hour, plain)), ClassRecoverable},
		"mark, joined":             {errors.Join(io.EOF, Permanent(plain)), ClassPermanent},
		"mark, two %w":             {fmt.Errorf("%w, %w", plain, Permanent(plain)), ClassPermanent},

		"deadline":          {context.DeadlineExceeded, ClassTransient},
		"canceled":          {context.Canceled, ClassRecoverable},
		"I/O deadline":      {os.ErrDeadlineExceeded, ClassTransient},
		"deadline in url":   {&url.Error{Op: "Get", URL: "http://x", Err: context.DeadlineExceeded}, ClassTransient},
		"refused":           {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, ClassTransient},
		"reset":             {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, ClassTransient},
		"aborted":           {syscall.ECONNABORTED, ClassTransient},
		"broken pipe":       {&net.OpError{Op: "write", Err: syscall.EPIPE}, ClassTransient},
		"net, other":        {&net.OpError{Op: "dial", Err: errors.New("no such network")}, ClassRecoverable},
		"EOF":               {io.EOF, ClassTransient},
		"unexpected EOF":    {io.ErrUnexpectedEOF, ClassTransient},
		"DNS temporary":     {&net.DNSError{Err: "try again", IsTemporary: true}, ClassTransient},
		"DNS timeout":       {&net.DNSError{Err: "timeout", IsTimeout: true}, ClassTransient},
		"DNS not found":     {&net.DNSError{Err: "no such host", IsNotFound: true}, ClassRecoverable},
		"file not found":    {fs.ErrNotExist, ClassRecoverable},
		"joined with known": {errors.Join(plain, io.EOF), ClassTransient},

		"HTTP 304": {statusError(304), ClassRecoverable},
		"HTTP 400": {statusError(400), ClassPermanent},
		"HTTP 404": {&HTTPError{Status: 404}, ClassPermanent},
		"HTTP 408": {statusError(408), ClassTransient},
		"HTTP 425": {statusError(425), ClassTransient},
		"HTTP 429": {statusError(429), ClassRecoverable},
		"HTTP 499": {statusError(499), ClassPermanent},
		"HTTP 500": {statusError(500), ClassRecoverable},
		"HTTP 503": {&HTTPError{Status: 503}, ClassRecoverable},
		"HTTP 504": {statusError(504), ClassRecoverable},
		"HTTP 507": {statusError(507), ClassRecoverable},
		"HTTP nil": {(*HTTPError)(nil), ClassRecoverable},

		"serialization failure": {stateError("40001"), ClassRecoverable},
		"deadlock":              {stateError("40P01"), ClassRecoverable},
		"lock not available":    {stateError("55P03"), ClassRecoverable},
		"cannot connect now":    {stateError("57P03"), ClassRecoverable},
		"unique violation":      {stateError("23505"), ClassRecoverable},

		"modernc busy":   {&moderncError{"database is locked (5) (SQLITE_BUSY)", 5}, ClassRecoverable},
		"modernc locked": {&moderncError{"database table is locked (6)", 6}, ClassRecoverable},
		"mattn busy":     {mattnError{5, "database is locked"}, ClassRecoverable},
		"mattn locked":   {mattnError{6, "database table is locked: orders"}, ClassRecoverable},
	} {
		t.Run(name, func(t *testing.T) {
			var classifier Classifier
			assert.Equal(t, test.want, classifier.Classify(test.err))
			if test.err != nil {
				assert.Equal(t, test.want, classifier.Classify(fmt.Errorf("deliver: %w", test.err)), "wrapped")
				assert.Equal(t, test.want, classifier.Classify(errors.Join(plain, test.err)), "joined")
			}
		})
	}
}

// What the table calls recoverable is what unknown errors are as well, so the
// table above can't tell whether these rules know their errors.
func TestRecoverableRulesKnowTheirErrors(t *testing.T) {
	for _, err := range []error{
		&moderncError{"database is locked (5) (SQLITE_BUSY)", 5},
		&moderncError{"database is locked (517)", 517},
		mattnError{6, "database table is locked: orders"},
		mattnError{6, "database schema is locked: main"},
		fmt.Errorf("save: %w", mattnError{5, "database is locked"}),
	} {
		class, ok := bySQLite(err)
		assert.True(t, ok, err)
		assert.Equal(t, ClassRecoverable, class)
	}
	_, ok := bySQLite(&moderncError{"constraint failed (19)", 19})
	assert.False(t, ok)

	_, ok = bySQLState(stateError("40001"))
	assert.True(t, ok)
	_, ok = bySQLState(stateError("23505"))
	assert.False(t, ok)

	_, ok = byHTTPStatus(statusError(429))
	assert.True(t, ok)
	_, ok = byHTTPStatus(statusError(505))
	assert.False(t, ok)
}

func TestHostRulesComeFirst(t *testing.T) {
	errOurs := errors.New("ours")
	var asked []string
	rule := func(name string, class Class, knows bool) Rule {
		return func(err error) (Class, bool) {
			asked = append(asked, name)
			require.Error(t, err)
			return class, knows && errors.Is(err, errOurs)
		}
	}
	classifier := Classifier{Rules: []Rule{
		rule("passes", ClassPermanent, false), nil, rule("decides", ClassTransient, true), rule("late", ClassPermanent, true),
	}}

	assert.Equal(t, ClassTransient, classifier.Classify(fmt.Errorf("x: %w", errOurs)))
	assert.Equal(t, []string{"passes", "decides"}, asked)
	assert.Equal(t, ClassTransient, classifier.Classify(Permanent(errOurs)), "before the marks")
	assert.Equal(t, ClassTransient, classifier.Classify(io.EOF), "the table follows")

	asked = nil
	assert.Equal(t, ClassRecoverable, classifier.Classify(nil))
	assert.Empty(t, asked, "nil asks no rule")
}

func BenchmarkClassify(b *testing.B) {
	var classifier Classifier
	for name, err := range map[string]error{
		"marked":  fmt.Errorf("deliver: %w", Permanent(io.EOF)),
		"http":    fmt.Errorf("deliver: %w", &HTTPError{Status: 503}),
		"unknown": fmt.Errorf("deliver: %w", errors.New("unknown")),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				classifier.Classify(err)
			}
		})
	}
}

func TestBuiltinKnowsTheTableOnly(t *testing.T) {
	class, known := Builtin(fmt.Errorf("x: %w", Permanent(io.EOF)))
	assert.True(t, known)
	assert.Equal(t, ClassPermanent, class)
	class, known = Builtin(errors.New("plain"))
	assert.False(t, known)
	assert.Equal(t, ClassRecoverable, class)
}
