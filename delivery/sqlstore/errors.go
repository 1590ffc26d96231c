package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry/lastfault"
)

// The errors of this package, to be matched with errors.Is. The contracts' errors
// come as well.
var (
	// ErrConfig says that the Config or the database can't be used as it is. The
	// text names every fault.
	ErrConfig = errors.New("sqlstore: invalid config")
	// ErrMigrationMissing says that the schema is older than the code, and that
	// Open was told not to change it. See MigrationMissingError.
	ErrMigrationMissing = errors.New("sqlstore: schema lacks migrations")
	// ErrMigrationNewer says that the schema is newer than the code. See
	// MigrationNewerError.
	ErrMigrationNewer = errors.New("sqlstore: schema is newer than the code")
	// ErrReadOnly says that the database takes no writes: a file without write
	// permission, or a PostgreSQL standby. Errors that match it match
	// delivery.ErrStoreDown.
	ErrReadOnly = errors.New("sqlstore: database is read-only")
	// ErrDiskFull says that there is no room for the write. Errors that match it
	// match delivery.ErrStoreDown.
	ErrDiskFull = errors.New("sqlstore: disk is full")
	// ErrDenied says that the user may not do what the store needs, or may not
	// connect. Errors that match it match delivery.ErrStoreDown.
	ErrDenied = errors.New("sqlstore: permission denied")
	// ErrLocked says that another transaction has kept rows locked, or on SQLite the
	// database, for as long as the call may wait. Errors that match it match
	// delivery.ErrStoreDown.
	ErrLocked = errors.New("sqlstore: locked by another transaction")
)

// errStandby is what a PostgreSQL in recovery is found to be. It answers all
// questions, and takes no writes.
var errStandby = errors.New("it is a standby")

// MigrationMissingError says which version the schema has, and which it needs.
// It matches ErrMigrationMissing.
type MigrationMissingError struct {
	Prefix     string
	Have, Want int64
}

func (e *MigrationMissingError) Error() string {
	return fmt.Sprintf("%s: tables %s* are at version %d, want %d: open with MigrateAuto, or run what Migrations returns above version %d",
		ErrMigrationMissing.Error(), e.Prefix, e.Have, e.Want, e.Have)
}

// Is makes it match ErrMigrationMissing.
func (e *MigrationMissingError) Is(target error) bool { return target == ErrMigrationMissing }

// MigrationNewerError says which version the schema has, and which is the last
// that the code knows. It matches ErrMigrationNewer.
type MigrationNewerError struct {
	Prefix      string
	Have, Known int64
}

func (e *MigrationNewerError) Error() string {
	return fmt.Sprintf("%s: tables %s* are at version %d, the code knows %d: update this program, or give it another TablePrefix",
		ErrMigrationNewer.Error(), e.Prefix, e.Have, e.Known)
}

// Is makes it match ErrMigrationNewer.
func (e *MigrationNewerError) Is(target error) bool { return target == ErrMigrationNewer }

// DatabaseError is a failure of the database, with the driver's error in its
// chain. It matches delivery.ErrStoreDown, and ErrReadOnly, ErrDiskFull,
// ErrDenied or ErrLocked when the database reported one of these.
type DatabaseError struct {
	// Doing is what the store was doing.
	Doing string
	Err   error
}

func (e *DatabaseError) Error() string {
	return fmt.Sprintf("sqlstore: %s: %v", e.Doing, e.Err)
}

// Unwrap returns the driver's error.
func (e *DatabaseError) Unwrap() error { return e.Err }

// Is makes it match delivery.ErrStoreDown, and what the database reported.
func (e *DatabaseError) Is(target error) bool {
	switch target {
	case delivery.ErrStoreDown:
		return true
	case ErrReadOnly:
		return causeOf(e.Err) == readOnly
	case ErrDiskFull:
		return causeOf(e.Err) == diskFull
	case ErrDenied:
		return causeOf(e.Err) == denied
	case ErrLocked:
		return causeOf(e.Err) == locked
	}
	return false
}

// asDatabaseError is err as a *DatabaseError, unless it is one already. If the
// caller's ctx has ended, it is ctx's error, together with err if err is more than a
// consequence of that, or else with the fault, which may be nil.
func asDatabaseError(ctx context.Context, doing string, err, fault error) error {
	if err == nil {
		return nil
	}
	if ended := lastfault.Ended(ctx); ended != nil {
		switch causeOf(err) {
		case transient, locked, readOnly, diskFull, denied, refusedValues:
			fault = err
		case unknown, connectionLost, noAnswer:
		}
		return withFault(ctx, doing, ended, fault)
	}
	var wrapped *DatabaseError
	if errors.As(err, &wrapped) || errors.Is(err, delivery.ErrStoreDown) {
		return err
	}
	return &DatabaseError{Doing: doing, Err: err}
}

// lockedError says how long a call has waited in vain for locks of others.
type lockedError struct {
	waited time.Duration
	err    error
}

func (e *lockedError) Error() string {
	return fmt.Sprintf("another transaction has held the locks for %s: %v", e.waited.Round(time.Millisecond), e.err)
}

func (e *lockedError) Unwrap() error { return e.err }

// noAnswerError says that the server did not answer within the store's own
// timeout. It hides that this was a context's deadline, because the caller's
// context may not have ended.
type noAnswerError struct {
	timeout time.Duration
	err     error
}

func (e *noAnswerError) Error() string {
	return fmt.Sprintf("no answer within %s: %v", e.timeout, e.err)
}

// asNoAnswer is err, as a noAnswerError if ctx, which bounds a transaction, has
// ended.
func asNoAnswer(ctx context.Context, timeout time.Duration, err error) error {
	if err != nil && lastfault.Ended(ctx) != nil {
		return &noAnswerError{timeout: timeout, err: err}
	}
	return err
}

// withTimeout asks the database a question within a timeout. No answer is a
// failure of the database, unless the caller's ctx has ended, too.
func withTimeout(ctx context.Context, timeout time.Duration, doing string, ask func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := ask(limited)
	if errors.Is(err, context.DeadlineExceeded) && lastfault.Ended(ctx) == nil {
		return &DatabaseError{Doing: doing, Err: asNoAnswer(limited, timeout, err)}
	}
	return err
}
