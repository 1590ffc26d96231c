package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// What can go wrong, to be matched with errors.Is, beside the errors of the
// contracts.
var (
	// ErrConfig: the Config or the database can't be used as it is; the text
	// names every fault.
	ErrConfig = errors.New("sqlstore: invalid config")
	// ErrMigrationMissing: the schema is older than the code, and Open was told
	// to leave it alone. See MigrationMissingError.
	ErrMigrationMissing = errors.New("sqlstore: schema lacks migrations")
	// ErrMigrationNewer: the schema is newer than the code. See
	// MigrationNewerError.
	ErrMigrationNewer = errors.New("sqlstore: schema is newer than the code")
	// ErrReadOnly: the database takes no writes: a file without write permission,
	// or a PostgreSQL standby. What matches it matches delivery.ErrStoreDown.
	ErrReadOnly = errors.New("sqlstore: database is read-only")
	// ErrDiskFull: there is no room for the write. What matches it matches
	// delivery.ErrStoreDown.
	ErrDiskFull = errors.New("sqlstore: disk is full")
)

// MigrationMissingError says which versions the schema has and needs. It is
// ErrMigrationMissing.
type MigrationMissingError struct {
	Prefix     string
	Have, Want int64
}

func (e *MigrationMissingError) Error() string {
	return fmt.Sprintf("%s: tables %s* are at version %d, want %d: open with MigrateAuto, or run what Migrations returns above version %d",
		ErrMigrationMissing.Error(), e.Prefix, e.Have, e.Want, e.Have)
}

// Is makes it ErrMigrationMissing.
func (e *MigrationMissingError) Is(target error) bool { return target == ErrMigrationMissing }

// MigrationNewerError says which version the schema has, and which is the last
// that the code knows. It is ErrMigrationNewer.
type MigrationNewerError struct {
	Prefix      string
	Have, Known int64
}

func (e *MigrationNewerError) Error() string {
	return fmt.Sprintf("%s: tables %s* are at version %d, the code knows %d: update this program, or give it another TablePrefix",
		ErrMigrationNewer.Error(), e.Prefix, e.Have, e.Known)
}

// Is makes it ErrMigrationNewer.
func (e *MigrationNewerError) Is(target error) bool { return target == ErrMigrationNewer }

// DatabaseError is a failure of the database, with the driver's error in its
// chain. It is delivery.ErrStoreDown, and ErrReadOnly or ErrDiskFull where the
// database said so.
type DatabaseError struct {
	// Doing is what failed.
	Doing string
	Err   error
}

func (e *DatabaseError) Error() string {
	return fmt.Sprintf("sqlstore: %s: %v", e.Doing, e.Err)
}

// Unwrap returns the driver's error.
func (e *DatabaseError) Unwrap() error { return e.Err }

// Is makes it delivery.ErrStoreDown, and what else the database said.
func (e *DatabaseError) Is(target error) bool {
	switch target {
	case delivery.ErrStoreDown:
		return true
	case ErrReadOnly:
		return causeOf(e.Err) == readOnly
	case ErrDiskFull:
		return causeOf(e.Err) == diskFull
	}
	return false
}

// failed is err as a failure of the database, unless it is the caller's ctx that
// has ended, or has been wrapped before.
func failed(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if over := endOf(ctx); over != nil {
		return over
	}
	var wrapped *DatabaseError
	if errors.As(err, &wrapped) || errors.Is(err, delivery.ErrStoreDown) {
		return err
	}
	return &DatabaseError{Doing: doing, Err: err}
}

// endOf is ctx's error. Drivers give the deadline to the network, which may notice
// it a moment before ctx does.
func endOf(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// cause is why the database failed, as far as it makes a difference.
type cause int

const (
	unknown   cause = iota
	passing         // it may do at the next try: a lock, a deadlock, a server that restarts
	gone            // the connection is lost
	silent          // there was no answer in time, or the server gave up
	readOnly        // the database takes no writes
	diskFull        // there is no room
	denied          // it does not let us
	statement       // it does not take the statement's values
)

// silence is what a driver says of a server that does not answer in time. That
// the time was a context's is not the caller's business, whose own context may
// not have ended.
type silence struct {
	timeout time.Duration
	err     error
}

func (s *silence) Error() string { return fmt.Sprintf("no answer within %s: %v", s.timeout, s.err) }

// unanswered is err, as silence if it is because ctx, which bounds a transaction,
// has ended.
func unanswered(ctx context.Context, timeout time.Duration, err error) error {
	if err != nil && endOf(ctx) != nil {
		return &silence{timeout: timeout, err: err}
	}
	return err
}

// bounded runs what asks the database within a time. That it did not answer in
// this time is the database's failure, unless the caller's ctx has ended, too.
func bounded(ctx context.Context, timeout time.Duration, doing string, ask func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := ask(limited)
	if errors.Is(err, context.DeadlineExceeded) && endOf(ctx) == nil {
		return &DatabaseError{Doing: doing, Err: unanswered(limited, timeout, err)}
	}
	return err
}

// The drivers' errors are told by what they can be asked, so that no driver has
// to be imported: PostgreSQL's have an SQLSTATE (PostgreSQL documentation,
// appendix "PostgreSQL Error Codes"), modernc.org/sqlite's a result code
// (SQLite documentation, "Result and Error Codes").
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
	case errors.As(err, new(*silence)):
		return silent
	case errors.As(err, &state):
		return causeOfState(state.SQLState())
	case errors.As(err, &code):
		return causeOfCode(code.Code())
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.As(err, new(*net.OpError)):
		return gone
	}
	return unknown
}

func causeOfState(state string) cause {
	switch state {
	case "40001", "40P01", "55P03": // serialization, deadlock, lock not available
		return passing
	case "25006":
		return readOnly
	case "53100":
		return diskFull
	case "53300", "57P01", "57P02", "57P03", "57P05", "25P03": // too many connections, shut down, crashed, starting up, idle
		return gone
	case "42501", "28000", "28P01", "3D000": // privilege, authorization, password, no such database
		return denied
	case "57014", "25P04": // statement_timeout or a request to cancel, transaction_timeout
		return silent
	}
	switch {
	case strings.HasPrefix(state, "08"):
		return gone
	case strings.HasPrefix(state, "22"), strings.HasPrefix(state, "23"), strings.HasPrefix(state, "54"),
		strings.HasPrefix(state, "P0"): // data, constraints, limits, triggers
		return statement
	}
	return unknown
}

func causeOfCode(code int) cause {
	switch code & 0xff { // the rest of an extended code says more of the same
	case 5, 6: // SQLITE_BUSY, SQLITE_LOCKED
		return passing
	case 3, 23: // SQLITE_PERM, SQLITE_AUTH
		return denied
	case 8: // SQLITE_READONLY
		return readOnly
	case 13: // SQLITE_FULL
		return diskFull
	case 18, 19, 20: // SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH
		return statement
	}
	return unknown
}
