package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// PgBouncerConfig configures a PgBouncer.
type PgBouncerConfig struct {
	// PostgresPort is the port on 127.0.0.1 of the PostgreSQL behind it. Required.
	PostgresPort int
	// Connections is how many connections to it there are at most. Default 20.
	Connections int
	// StartTimeout bounds each start. Default 2 minutes, for a busy machine.
	StartTimeout time.Duration
}

// PgBouncer is a private PgBouncer with pool_mode=transaction: a pooler that
// gives each transaction one of a few connections to a PostgreSQL. Its methods
// may be called by any number of goroutines at once.
type PgBouncer struct {
	Server
	config PgBouncerConfig
}

// NewPgBouncer starts a PgBouncer, and returns when it answers. End it with
// Close. It fails with ErrMissing when PgBouncer is not installed, and with
// ErrNotReady when it does not answer by ctx's end or within StartTimeout.
func NewPgBouncer(ctx context.Context, config PgBouncerConfig) (*PgBouncer, error) {
	if config.Connections <= 0 {
		config.Connections = 20
	}
	path, err := findProgram("pgbouncer", EnvPgBouncer, "", "apt-get install pgbouncer")
	if err != nil {
		return nil, err
	}
	b := &PgBouncer{config: config}
	if err := b.openDir("barid-pgbouncer-", "", config.StartTimeout); err != nil {
		return nil, err
	}
	if err := b.startNew(ctx, func() error { return b.setUp(path) }); err != nil {
		return nil, err
	}
	return b, nil
}

// StartPgBouncer is NewPgBouncer for a test. It fails the test when PgBouncer
// doesn't start, closes it at the test's end, and shows the end of its log when
// the test failed. It skips the test under go test -short.
func StartPgBouncer(tb testing.TB, config PgBouncerConfig) *PgBouncer {
	tb.Helper()
	skipShort(tb, "PgBouncer")
	b, err := NewPgBouncer(context.WithoutCancel(tb.Context()), config)
	if err != nil {
		tb.Fatal(err)
	}
	b.closeAtEnd(tb)
	return b
}

func (b *PgBouncer) setUp(path string) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	b.port = ports[0]
	ini := filepath.Join(b.dir, "pgbouncer.ini")
	settings := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
`, b.config.PostgresPort, b.port, b.config.Connections)
	if err := errors.Join(os.WriteFile(ini, []byte(settings), 0o600), chownToServerUser(b.dir), chownToServerUser(ini)); err != nil {
		return err
	}
	b.server = &process{
		name:  "pgbouncer",
		path:  path,
		args:  []string{ini},
		env:   bareEnv(),
		dir:   b.dir,
		log:   filepath.Join(b.dir, "pgbouncer.log"),
		ready: func(ctx context.Context, _ int) error { return b.ask(ctx) },

		unprivileged: true,
		end:          interrupt,
	}
	return nil
}

func (b *PgBouncer) ask(ctx context.Context) error {
	conn, err := dial(ctx, b.port)
	if err != nil {
		return err
	}
	return conn.Close()
}

// URL is where clients connect, with pgx's setting for a server that keeps no
// prepared statements between transactions.
func (b *PgBouncer) URL() string {
	return "postgres://postgres@" + b.Addr() + "/postgres?sslmode=disable&default_query_exec_mode=exec"
}
