package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// PostgresConfig configures a PostgreSQL. The zero value is an empty server
// that syncs every commit to the disk.
type PostgresConfig struct {
	// Dir holds the server's data. Empty means a temporary folder, which is removed
	// at the end. A folder that is named must exist, and stays. PostgreSQL does not
	// run as root, so root's folder is given to the user postgres, or else nobody,
	// who must be able to reach it: a folder of testing.T.TempDir is closed to
	// other users.
	Dir string
	// Args are added to the command line, for instance "-c", "max_connections=10".
	Args []string
	// NoSync makes commits faster: they are not synced to the disk, so that a power
	// cut loses some.
	NoSync bool
	// StartTimeout bounds each start. Default 2 minutes, for a busy machine.
	StartTimeout time.Duration
}

// Postgres is a private PostgreSQL server with a superuser named postgres that
// has no password. Its methods may be called by any number of goroutines at
// once.
type Postgres struct {
	Server
	config PostgresConfig
}

// NewPostgres starts a PostgreSQL, and returns when it answers. End it with
// Close. It fails with ErrMissing when PostgreSQL is not installed, and with
// ErrNotReady when the server does not answer by ctx's end or within
// StartTimeout.
func NewPostgres(ctx context.Context, config PostgresConfig) (*Postgres, error) {
	programs, err := findPostgres()
	if err != nil {
		return nil, err
	}
	p := &Postgres{config: config}
	if err := p.openDir("barid-postgres-", config.Dir, config.StartTimeout); err != nil {
		return nil, err
	}
	if err := p.initialize(ctx, programs); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.startNew(ctx, func() error { return p.setUp(programs) }); err != nil {
		return nil, err
	}
	return p, nil
}

// StartPostgres is NewPostgres for a test. It fails the test when the server
// doesn't start, closes the server at the test's end, and shows the end of the
// server's log when the test failed. It skips the test under go test -short.
func StartPostgres(tb testing.TB, config PostgresConfig) *Postgres {
	tb.Helper()
	skipShort(tb, "PostgreSQL")
	p, err := NewPostgres(context.WithoutCancel(tb.Context()), config)
	if err != nil {
		tb.Fatal(err)
	}
	p.closeAtEnd(tb)
	return p
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "postgres") }

// initialize makes the data folder, unless an earlier server has left one.
func (p *Postgres) initialize(ctx context.Context, programs string) error {
	if _, err := os.Stat(filepath.Join(p.data(), "PG_VERSION")); err == nil {
		return nil
	}
	if _, err := os.Stat(p.dir); err != nil {
		return err
	}
	if err := chownToServerUser(p.dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.startTimeout)
	defer cancel()
	initdb := &process{
		name: "initdb",
		path: filepath.Join(programs, "initdb"),
		args: []string{"--pgdata", p.data(), "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"},
		env:  bareEnv(),
		dir:  p.dir,
		log:  filepath.Join(p.dir, "initdb.log"),

		unprivileged: true,
	}
	run, err := initdb.launch()
	if err != nil {
		return fmt.Errorf("servers: starting initdb: %w", err)
	}
	select {
	case <-run.ended:
	case <-ctx.Done():
		_ = killGroup(run.process)
		<-run.ended
		return fmt.Errorf("%w: initdb: %w", ErrNotReady, context.Cause(ctx))
	}
	// When it fails, it removes what it has made.
	if _, err := os.Stat(filepath.Join(p.data(), "PG_VERSION")); err != nil {
		return fmt.Errorf("%w: initdb failed; its log ends with:\n%s", ErrNotReady, initdb.tail())
	}
	return nil
}

func (p *Postgres) setUp(programs string) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	p.port = ports[0]
	sync := "on"
	if p.config.NoSync {
		sync = "off"
	}
	p.server = &process{
		name: "postgres",
		path: filepath.Join(programs, "postgres"),
		args: append([]string{
			"-D", p.data(), "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1",
			"-c", "unix_socket_directories=", "-c", "fsync=" + sync, "-c", "logging_collector=off",
		}, p.config.Args...),
		env:          bareEnv(),
		dir:          p.dir,
		log:          filepath.Join(p.dir, "postgres.log"),
		ready:        p.ask,
		unprivileged: true,
		end:          interrupt, // SIGTERM would wait for all clients to leave
	}
	return nil
}

// ask reads the status that the server writes into its folder.
func (p *Postgres) ask(ctx context.Context, pid int) error {
	note, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	lines := bytes.Split(note, []byte("\n"))
	const ownPID, status = 0, 7
	if len(lines) <= status || string(lines[ownPID]) != strconv.Itoa(pid) {
		return errors.New("servers: PostgreSQL is starting")
	}
	if found := strings.TrimSpace(string(lines[status])); found != "ready" && found != "standby" {
		return errors.New("servers: PostgreSQL is " + found)
	}
	conn, err := dial(ctx, p.port)
	if err != nil {
		return err
	}
	return conn.Close()
}

// URL is where clients connect: postgres://postgres@127.0.0.1:port/postgres. It
// stays the same over restarts.
func (p *Postgres) URL() string {
	return "postgres://postgres@" + p.Addr() + "/postgres?sslmode=disable"
}
