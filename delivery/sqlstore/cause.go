package sqlstore

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
)

// cause is why the database failed, as far as that makes a difference.
type cause int

const (
	unknown        cause = iota
	transient            // the next try may succeed: a deadlock
	locked               // another transaction holds a lock that is needed
	connectionLost       // the connection is lost
	noAnswer             // there was no answer in time, or the server gave up
	readOnly             // the database takes no writes
	diskFull             // there is no room
	denied               // the user lacks the privilege
	refusedValues        // the values of the statement are refused
)

// sqlStater is an error of a PostgreSQL driver (PostgreSQL documentation, appendix
// "PostgreSQL Error Codes"). The drivers' errors are recognised by their form, here
// and in resultCode, so that no driver has to be imported.
type sqlStater interface{ SQLState() string }

func causeOf(err error) cause {
	var state sqlStater
	code, isSQLite := resultCode(err)
	switch {
	case err == nil:
		return unknown
	case errors.As(err, new(*noAnswerError)):
		return noAnswer
	case errors.Is(err, errStandby):
		return readOnly
	case errors.As(err, &state):
		// A standby does not support a transaction that writes. Other features that a
		// server lacks are not needed to begin one.
		if state.SQLState() == "0A000" && errors.As(err, new(*beginError)) {
			return readOnly
		}
		return causeOfState(state.SQLState())
	case isSQLite:
		return causeOfCode(code)
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.As(err, new(*net.OpError)):
		return connectionLost
	}
	return unknown
}

func causeOfState(state string) cause {
	switch state {
	case "40001", "40P01": // serialization, deadlock
		return transient
	case "55P03": // lock not available
		return locked
	case "25006":
		return readOnly
	case "53100":
		return diskFull
	case "53300", "57P01", "57P02", "57P03", "57P05", "25P03": // too many connections, shut down, crashed, starting up, idle
		return connectionLost
	case "42501", "28000", "28P01", "3D000": // privilege, authorization, password, no such database
		return denied
	case "57014", "25P04": // statement_timeout or a request to cancel, transaction_timeout
		return noAnswer
	}
	switch {
	case strings.HasPrefix(state, "08"):
		return connectionLost
	case strings.HasPrefix(state, "22"), strings.HasPrefix(state, "23"), strings.HasPrefix(state, "54"),
		strings.HasPrefix(state, "P0"): // data, constraints, limits, triggers
		return refusedValues
	}
	return unknown
}

// resultCode is the first of SQLite's result codes in the chain of err (SQLite
// documentation, "Result and Error Codes"). The errors of modernc.org/sqlite and of
// github.com/ncruces/go-sqlite3 have a method Code, those of
// github.com/mattn/go-sqlite3 a field Code. Each has an integer type of its own.
func resultCode(err error) (code uint8, ok bool) {
	if err == nil {
		return 0, false
	}
	if code, ok = ownResultCode(reflect.ValueOf(err)); ok {
		return code, true
	}
	switch wrapper := err.(type) { //nolint:errorlint // it goes through the chain itself
	case interface{ Unwrap() error }:
		return resultCode(wrapper.Unwrap())
	case interface{ Unwrap() []error }:
		for _, each := range wrapper.Unwrap() {
			if code, ok = resultCode(each); ok {
				return code, true
			}
		}
	}
	return 0, false
}

// ownResultCode is the result code of this error.
func ownResultCode(err reflect.Value) (code uint8, ok bool) {
	var found reflect.Value
	if method := err.MethodByName("Code"); method.IsValid() {
		if t := method.Type(); t.NumIn() != 0 || t.NumOut() != 1 {
			return 0, false
		}
		found = method.Call(nil)[0]
	} else if err.Kind() == reflect.Struct {
		if field, ok := err.Type().FieldByName("Code"); ok && len(field.Index) == 1 {
			found = err.FieldByIndex(field.Index)
		}
	}
	switch { // an extended code has the primary one in its last byte
	case found.CanInt():
		return uint8(found.Int()), true //nolint:gosec // see above
	case found.CanUint():
		return uint8(found.Uint()), true //nolint:gosec // see above
	}
	return 0, false
}

func causeOfCode(code uint8) cause {
	switch code {
	case 5, 6: // SQLITE_BUSY, SQLITE_LOCKED
		return locked
	case 3, 23: // SQLITE_PERM, SQLITE_AUTH
		return denied
	case 8: // SQLITE_READONLY
		return readOnly
	case 13: // SQLITE_FULL
		return diskFull
	case 18, 19, 20: // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH
		return refusedValues
	}
	return unknown
}
