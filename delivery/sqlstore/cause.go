package sqlstore

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
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

// The drivers' errors are recognised by their methods, so that no driver has to
// be imported: PostgreSQL's have an SQLSTATE (PostgreSQL documentation, appendix
// "PostgreSQL Error Codes"), and those of modernc.org/sqlite a result code (SQLite
// documentation, "Result and Error Codes").
type (
	sqlStater interface{ SQLState() string }
	coder     interface{ Code() int }
)

func causeOf(err error) cause {
	var state sqlStater
	var code coder
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
	case errors.As(err, &code):
		return causeOfCode(code.Code())
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

func causeOfCode(code int) cause {
	switch code & 0xff { // the primary code of an extended one
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
