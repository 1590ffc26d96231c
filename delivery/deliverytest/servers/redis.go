package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisConfig says what is special about a Redis. The zero value is an empty
// server that forgets everything when it ends.
type RedisConfig struct {
	// Dir holds the server's data. Empty means a temporary folder, removed at the
	// end. A Dir that is named must exist and stays.
	Dir string
	// Args are added to the command line, for instance "--maxmemory", "4mb".
	Args []string
	// Cluster makes it a node of a cluster, with a bus port, that serves no slot
	// yet.
	Cluster bool
	// AppendOnly keeps every write in a file, so that it outlives Stop and Kill.
	AppendOnly bool
	// StartTimeout bounds each start. Default 2 minutes, for a busy machine.
	StartTimeout time.Duration
}

// Redis is a private Redis server without a password. Its methods may be
// called by any number of goroutines at once.
type Redis struct {
	config RedisConfig
	dir    string
	ownDir bool
	port   int
	bus    int
	server *process
}

// NewRedis starts a Redis and returns when it answers. End it with Close. It
// fails with ErrMissing when Redis is not installed, and with ErrNotReady, which
// tells the end of its log, when it does not come up by ctx's end or within
// StartTimeout.
func NewRedis(ctx context.Context, config RedisConfig) (*Redis, error) {
	if config.StartTimeout <= 0 {
		config.StartTimeout = 2 * time.Minute
	}
	path, err := findProgram("redis-server", EnvRedisServer, EnvRedisURL, "apt-get install redis-server")
	if err != nil {
		return nil, err
	}
	r := &Redis{config: config}
	if r.dir, r.ownDir, err = dataDir(config.Dir, "barid-redis-"); err != nil {
		return nil, err
	}
	for range startTries {
		if err = r.setUp(path); err == nil {
			err = r.Start(ctx)
		}
		if err == nil {
			return r, nil
		}
		if !portTaken(err.Error()) || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(err, r.Close())
}

// StartRedis is NewRedis for a test: it fails the test when the server doesn't
// start, closes the server at the test's end, and shows the end of the server's
// log when the test failed. It skips the test under go test -short.
func StartRedis(tb testing.TB, config RedisConfig) *Redis {
	tb.Helper()
	skipShort(tb, "Redis")
	r, err := NewRedis(context.WithoutCancel(tb.Context()), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		logTail(tb, r.server)
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

func (r *Redis) setUp(path string) error {
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	r.port = ports[0]
	appendOnly := "no"
	if r.config.AppendOnly {
		appendOnly = "yes"
	}
	args := []string{
		"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir,
		"--daemonize", "no", "--save", "", "--appendonly", appendOnly,
	}
	if r.config.Cluster {
		r.bus = ports[1]
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(r.bus))
	}
	r.server = &process{
		name:  "redis-server",
		path:  path,
		args:  append(args, r.config.Args...),
		env:   bareEnv(),
		dir:   r.dir,
		log:   filepath.Join(r.dir, "redis.log"),
		ready: r.ask,
	}
	return nil
}

// ask asks the server for its process ID, which tells ours from one that was
// quicker to listen on the port. One that wants a password can't be asked more.
func (r *Redis) ask(ctx context.Context, pid int) error {
	conn, err := dial(ctx, r.port)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is sent after the answer
	if _, err := io.WriteString(conn, "PING\r\nINFO server\r\n"); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "-NOAUTH") {
			return nil
		}
		if strings.HasPrefix(line, "-") {
			return errors.New("servers: Redis answers " + line)
		}
		if found, ok := strings.CutPrefix(line, "process_id:"); ok {
			if found != strconv.Itoa(pid) {
				return fmt.Errorf("servers: port %d is another server's", r.port)
			}
			return nil
		}
	}
	return errors.Join(errors.New("servers: Redis did not tell its process ID"), lines.Err())
}

// URL is where clients connect: redis://127.0.0.1:port/0. It stays the same
// over restarts.
func (r *Redis) URL() string { return "redis://" + r.Addr() + "/0" }

// Addr is host and port.
func (r *Redis) Addr() string { return loopback(r.port) }

// Port is the port on 127.0.0.1.
func (r *Redis) Port() int { return r.port }

// BusPort is the port on 127.0.0.1 where a node of a cluster meets the others,
// and 0 without RedisConfig.Cluster.
func (r *Redis) BusPort() int { return r.bus }

// Dir holds the server's data.
func (r *Redis) Dir() string { return r.dir }

// PID is the process ID of the server's last run.
func (r *Redis) PID() int { return r.server.pid() }

// Running says whether the server's process lives, be it paused.
func (r *Redis) Running() bool { return r.server.running() }

// LogTail is the end of the server's log.
func (r *Redis) LogTail() string { return r.server.tail() }

// Start starts the server again, on the same data and port, and returns when it
// answers. A server that runs is left alone.
func (r *Redis) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.config.StartTimeout)
	defer cancel()
	return r.server.start(ctx)
}

// Stop ends the server as an administrator would, and waits until it is gone.
func (r *Redis) Stop() error { return r.server.stop() }

// Kill ends the server at once, as a power cut would, except that the system's
// write cache stays.
func (r *Redis) Kill() error { return r.server.kill() }

// Pause stops the server from running, with all connections open.
func (r *Redis) Pause() error { return r.server.signal(pause) }

// Resume ends a Pause.
func (r *Redis) Resume() error { return r.server.signal(resume) }

// Close ends the server for good and removes its temporary folder. Closing
// again returns nil.
func (r *Redis) Close() error {
	var errs []error
	if r.server != nil {
		errs = append(errs, r.server.close())
	}
	if r.ownDir {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}
