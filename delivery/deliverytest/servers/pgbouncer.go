package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// PgBouncer is a private PgBouncer: a pooler that gives each transaction one of
// a few connections to a PostgreSQL.
type PgBouncer struct{ Server }

// StartPgBouncer starts a PgBouncer in front of the PostgreSQL at this port of
// 127.0.0.1, with pool_mode=transaction and as many connections to it. It fails
// the test when PgBouncer doesn't start, and closes it at the test's end. It
// skips the test under go test -short.
func StartPgBouncer(tb testing.TB, postgresPort, connections int) *PgBouncer {
	tb.Helper()
	skipShort(tb, "PgBouncer")
	b := new(PgBouncer)
	path, err := findProgram("pgbouncer", EnvPgBouncer, "", "apt-get install pgbouncer")
	if err == nil {
		err = b.openDir("barid-pgbouncer-", "", 0)
	}
	if err == nil {
		err = b.startNew(context.WithoutCancel(tb.Context()), func() error { return b.setUp(path, postgresPort, connections) })
	}
	if err != nil {
		tb.Fatal(err)
	}
	b.closeAtEnd(tb)
	return b
}

func (b *PgBouncer) setUp(path string, postgresPort, connections int) error {
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
`, postgresPort, b.port, connections)
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
