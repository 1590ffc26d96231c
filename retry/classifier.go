package retry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// Rule returns the class of err and true, or false if it does not know err, which
// is then left to the next rule. err is never nil. A rule must be safe for
// concurrent use and must not keep err. It should look through wrapping with
// errors.Is and errors.As.
type Rule func(err error) (Class, bool)

// Classifier tells the class of an error. The first rule that knows the error
// decides: Rules in their order, then this table, in its order:
//
//	mark by Permanent                              permanent
//	mark by After                                  recoverable
//	mark by Later                                  later
//	context.DeadlineExceeded                       transient
//	timeout of a net.Error                         transient
//	connection refused, reset, aborted, broken pipe  transient
//	io.EOF, io.ErrUnexpectedEOF                    transient
//	DNS failure that is temporary                  transient
//	HTTP status 408, 425                           transient
//	HTTP status 429, 500 to 504                    recoverable
//	other HTTP status 400 to 499                   permanent
//	SQLSTATE 40001, 40P01, 55P03, 57P03            recoverable
//	SQLite busy or locked                          recoverable
//	anything else                                  recoverable
//
// An HTTP status is known from any error with StatusCode() int, an SQLSTATE
// from any error with SQLState() string (pgx and lib/pq have it). All are found
// through wrapping.
//
// The table has no error that takes a client's package to recognise, so that this
// package links none. Packages that link one have a Rule for its errors, such as
// ClassifyError of delivery/rabbitmq, to be put into Rules behind Builtin.
//
// context.Canceled is not in the table. That the caller gave up is no failure, so
// look for it before asking; here it is recoverable, as unknown errors are.
//
// The zero value works. A Classifier is safe for concurrent use as long as its
// Rules are not changed.
type Classifier struct {
	// Rules are the host's own, asked in order before the table. Default none.
	// A nil Rule is passed over.
	Rules []Rule
}

// Classify returns the class of err. A nil err is no failure and has no class:
// for it Classify returns ClassRecoverable, the zero value, and asks no rule.
func (c Classifier) Classify(err error) Class {
	if err == nil {
		return ClassRecoverable
	}
	for _, rule := range c.Rules {
		if rule == nil {
			continue
		}
		if class, ok := rule(err); ok {
			return class
		}
	}
	class, _ := Builtin(err) // ClassRecoverable where it does not know
	return class
}

// Builtin is the Rule of the table at Classifier, but for its last line: what is
// not in the table it does not know. A Classifier asks it after Rules. A rule that
// is to decide only what the table leaves open goes into Rules behind Builtin.
func Builtin(err error) (Class, bool) {
	for _, rule := range [...]Rule{byMark, byConnection, byHTTPStatus, bySQLState, bySQLite} {
		if class, ok := rule(err); ok {
			return class, true
		}
	}
	return ClassRecoverable, false
}

func byMark(err error) (Class, bool) {
	if found, ok := errors.AsType[*mark](err); ok {
		return found.class, true
	}
	return 0, false
}

// byConnection knows failures of a network that pass soon.
func byConnection(err error) (Class, bool) {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return ClassTransient, true
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.Temporary() {
		return ClassTransient, true
	}
	for _, known := range [...]error{
		context.DeadlineExceeded,
		syscall.ECONNREFUSED,
		syscall.ECONNRESET,
		syscall.ECONNABORTED,
		syscall.EPIPE, // a reset, as the writing side sees it
		io.EOF,
		io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, known) {
			return ClassTransient, true
		}
	}
	return 0, false
}

func byHTTPStatus(err error) (Class, bool) {
	answer, ok := errors.AsType[interface {
		error
		StatusCode() int
	}](err)
	if !ok {
		return 0, false
	}
	switch status := answer.StatusCode(); {
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return ClassTransient, true
	case status == http.StatusTooManyRequests, status >= 500 && status <= 504:
		return ClassRecoverable, true
	case status >= 400 && status <= 499:
		return ClassPermanent, true
	}
	return 0, false
}

// bySQLState knows what PostgreSQL reports when two transactions block each other,
// and when the server is starting or stopping.
func bySQLState(err error) (Class, bool) {
	state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	if !ok {
		return 0, false
	}
	switch state.SQLState() {
	case "40001", // serialization_failure
		"40P01", // deadlock_detected
		"55P03", // lock_not_available
		"57P03": // cannot_connect_now
		return ClassRecoverable, true
	}
	return 0, false
}

// bySQLite knows SQLITE_BUSY and SQLITE_LOCKED by their text, because that is all
// that the drivers have in common. modernc.org/sqlite has an *Error with Code() int,
// whose text is SQLite's own with the number behind it: "database is locked (5)
// (SQLITE_BUSY)". mattn/go-sqlite3 has an Error by value, with Code as a field of a
// type of its own, whose text is SQLite's alone: "database is locked", "database
// table is locked: orders".
func bySQLite(err error) (Class, bool) {
	text := err.Error()
	for _, known := range [...]string{
		"database is locked",        // SQLITE_BUSY
		"database table is locked",  // SQLITE_LOCKED
		"database schema is locked", // SQLITE_LOCKED, with a shared cache
	} {
		if strings.Contains(text, known) {
			return ClassRecoverable, true
		}
	}
	return 0, false
}
