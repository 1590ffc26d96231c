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

// PostgresConfig says what is special about a PostgreSQL. The zero value is an
// empty server that syncs every commit to the disk.
type PostgresConfig struct {
	// Dir holds the server's data. Empty means a temporary folder, removed at the
	// end. A Dir that is named must exist and stays. For root, who PostgreSQL does
	// not run as, it is made the user postgres's, or else nobody's, who has to be
	// able to reach it: what testing.T.TempDir makes is closed to others.
	Dir string
	// Args are added to the command line, for instance "-c", "max_connections=10".
	Args []string
	// NoSync leaves the disk to the system, so that commits are quicker, and only
	// a power cut loses some.
	NoSync bool
	// StartTimeout bounds each start. Default 2 minutes, for a busy machine.
	StartTimeout time.Duration
}

// Postgres is a private PostgreSQL server with a superuser named postgres, who
// has no password. Its methods may be called by any number of goroutines at
// once.
type Postgres struct {
	config PostgresConfig
	dir    string
	ownDir bool
	port   int
	server *process
}

// NewPostgres starts a PostgreSQL and returns when it answers. End it with
// Close. It fails with ErrMissing when PostgreSQL is not installed, and with
// ErrNotReady, which tells the end of its log, when it does not come up by ctx's
// end or within StartTimeout.
func NewPostgres(ctx context.Context, config PostgresConfig) (*Postgres, error) {
	if config.StartTimeout <= 0 {
		config.StartTimeout = 2 * time.Minute
	}
	programs, err := findPostgres()
	if err != nil {
		return nil, err
	}
	p := &Postgres{config: config}
	if p.dir, p.ownDir, err = dataDir(config.Dir, "barid-postgres-"); err != nil {
		return nil, err
	}
	if err := p.initialize(ctx, programs); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	for range startTries {
		if err = p.setUp(programs); err == nil {
			err = p.Start(ctx)
		}
		if err == nil {
			return p, nil
		}
		if !portTaken(err.Error()) || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(err, p.Close())
}

// StartPostgres is NewPostgres for a test: it fails the test when the server
// doesn't start, closes the server at the test's end, and shows the end of the
// server's log when the test failed. It skips the test under go test -short.
func StartPostgres(tb testing.TB, config PostgresConfig) *Postgres {
	tb.Helper()
	skipShort(tb, "PostgreSQL")
	p, err := NewPostgres(context.WithoutCancel(tb.Context()), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		logTail(tb, p.server)
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "postgres") }

// initialize makes the data folder, unless a server before has left one.
func (p *Postgres) initialize(ctx context.Context, programs string) error {
	if _, err := os.Stat(filepath.Join(p.data(), "PG_VERSION")); err == nil {
		return nil
	}
	if _, err := os.Stat(p.dir); err != nil {
		return err
	}
	if err := giveAway(p.dir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.StartTimeout)
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
	// One that fails takes away what it has made.
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

// ask looks into the server's own note of what it is up to.
func (p *Postgres) ask(ctx context.Context, pid int) error {
	note, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return err
	}
	lines := bytes.Split(note, []byte("\n"))
	const ownPID, status = 0, 7
	if len(lines) <= status || string(lines[ownPID]) != strconv.Itoa(pid) || strings.TrimSpace(string(lines[status])) != "ready" {
		return errors.New("servers: PostgreSQL is starting")
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

// Addr is host and port.
func (p *Postgres) Addr() string { return loopback(p.port) }

// Port is the port on 127.0.0.1.
func (p *Postgres) Port() int { return p.port }

// Dir holds the server's data.
func (p *Postgres) Dir() string { return p.dir }

// PID is the process ID of the server's last run.
func (p *Postgres) PID() int { return p.server.pid() }

// Running says whether the server's process lives, be it paused.
func (p *Postgres) Running() bool { return p.server.running() }

// LogTail is the end of the server's log.
func (p *Postgres) LogTail() string { return p.server.tail() }

// Start starts the server again, on the same data and port, and returns when it
// answers. A server that runs is left alone.
func (p *Postgres) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.StartTimeout)
	defer cancel()
	return p.server.start(ctx)
}

// Stop ends the server as an administrator would who doesn't wait for the
// clients, and waits until it is gone.
func (p *Postgres) Stop() error { return p.server.stop() }

// Kill ends the server with all its processes at once, as a power cut would,
// except that the system's write cache stays.
func (p *Postgres) Kill() error { return p.server.kill() }

// Pause stops the server from running, with all connections open.
func (p *Postgres) Pause() error { return p.server.signal(pause) }

// Resume ends a Pause.
func (p *Postgres) Resume() error { return p.server.signal(resume) }

// Close ends the server for good and removes its temporary folder. Closing
// again returns nil.
func (p *Postgres) Close() error {
	var errs []error
	if p.server != nil {
		errs = append(errs, p.server.close())
	}
	if p.ownDir {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}
