package sqlstore

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"
)

// Dialect is the kind of database.
type Dialect int

// The dialects.
const (
	// Detect asks the server which it is.
	Detect Dialect = iota
	SQLite
	PostgreSQL
)

// String is the dialect's name.
func (d Dialect) String() string {
	switch d {
	case Detect:
		return "Detect"
	case SQLite:
		return "SQLite"
	case PostgreSQL:
		return "PostgreSQL"
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// Migrate says what Open does about a schema that is not up to date.
type Migrate int

// What Open does.
const (
	// MigrateAuto brings the schema up to date.
	MigrateAuto Migrate = iota
	// MigrateCheck only checks it: a schema that lacks migrations is a
	// *MigrationMissingError. See Migrations.
	MigrateCheck
)

// Config says how a Store uses its database. The zero value is ready.
type Config struct {
	// Dialect is the kind of database. Default Detect.
	Dialect Dialect
	// TablePrefix begins the name of every table and index, so that several
	// stores fit into one database. It has lower-case letters, digits and
	// underscores, does not begin with a digit, and has at most 32 bytes.
	// Default "barid_".
	TablePrefix string
	// Queue is given to records that were saved before records had a queue. Open
	// fails with ErrConfig when there are some and Queue is empty. Otherwise it does
	// nothing. Default: none.
	Queue string
	// Migrate says what to do about a schema that is not up to date. Default
	// MigrateAuto.
	Migrate Migrate
	// MaxBatch is how many records at most share a transaction. Together they have
	// at most 16 MiB; a larger record has a transaction of its own. A call with
	// more is executed in several transactions, one after another. Default 256,
	// from 1 to 10,000.
	MaxBatch int
	// InFlight is how many transactions the store has open at once for calls that
	// write. It has as many for Get, and each has a connection. A higher number
	// makes smaller batches, which cost the server more. Default 2, from 1 to 64.
	// SQLite always has one writer.
	InFlight int
	// Timeout bounds each transaction, its wait for a connection included, and how
	// long a call waits for locks of others. It bounds Stats, too, which takes long
	// with very many records. Default 30 s, at least 1 ms. Migrations are bounded by
	// ctx alone. On SQLite it bounds only Get and Open: the others are bounded by the
	// DSN's busy_timeout, for which a transaction waits up to five times.
	Timeout time.Duration
	// Logger gets what needs an operator's attention. Default: nothing is logged.
	Logger *slog.Logger
}

// maxPrefix bounds Config.TablePrefix, so that no name that begins with it is
// longer than PostgreSQL's 63 bytes.
const maxPrefix = 32

const defaultPrefix = "barid_"

var prefixes = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

func (c Config) withDefaults() (Config, error) {
	if c.TablePrefix == "" {
		c.TablePrefix = defaultPrefix
	}
	if c.MaxBatch == 0 {
		c.MaxBatch = 256
	}
	if c.InFlight == 0 {
		c.InFlight = 2
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if c.Dialect < Detect || c.Dialect > PostgreSQL {
		fault("Dialect is %d, want Detect, SQLite or PostgreSQL", int(c.Dialect))
	}
	if err := checkPrefix(c.TablePrefix); err != nil {
		faults = append(faults, err)
	}
	if c.Migrate < MigrateAuto || c.Migrate > MigrateCheck {
		fault("Migrate is %d, want MigrateAuto or MigrateCheck", int(c.Migrate))
	}
	if c.MaxBatch < 1 || c.MaxBatch > 10_000 {
		fault("MaxBatch is %d, want 1 to 10000", c.MaxBatch)
	}
	if c.InFlight < 1 || c.InFlight > 64 {
		fault("InFlight is %d, want 1 to 64", c.InFlight)
	}
	if c.Timeout < time.Millisecond {
		fault("Timeout is %s, want at least 1ms", c.Timeout)
	}
	return c, errors.Join(faults...)
}

func checkPrefix(prefix string) error {
	if len(prefix) > maxPrefix || !prefixes.MatchString(prefix) {
		return fmt.Errorf("%w: TablePrefix is %.40q, want %s, at most %d bytes", ErrConfig, prefix, prefixes, maxPrefix)
	}
	return nil
}
