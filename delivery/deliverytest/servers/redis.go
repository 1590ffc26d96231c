package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisConfig configures a Redis. The zero value is an empty server that loses
// everything when it ends.
type RedisConfig struct {
	// Dir holds the server's data. Empty means a temporary folder, which is removed
	// at the end. A folder that is named must exist, and stays.
	Dir string
	// Args are added to the command line, for instance "--maxmemory", "4mb".
	Args []string
	// Cluster makes it a node of a cluster, with a bus port, that serves no slot
	// yet.
	Cluster bool
	// AppendOnly writes every change to a file, so that it survives Stop and Kill.
	AppendOnly bool
	// StartTimeout bounds each start. Default 2 minutes, for a busy machine.
	StartTimeout time.Duration
}

// Redis is a private Redis server without a password. Its methods may be called
// by any number of goroutines at once.
type Redis struct {
	Server
	config RedisConfig
	bus    int
}

// NewRedis starts a Redis, and returns when it answers. End it with Close. It
// fails with ErrMissing when Redis is not installed, and with ErrNotReady when
// the server does not answer by ctx's end or within StartTimeout.
func NewRedis(ctx context.Context, config RedisConfig) (*Redis, error) {
	path, err := findProgram("redis-server", EnvRedisServer, EnvRedisURL, "apt-get install redis-server")
	if err != nil {
		return nil, err
	}
	r := &Redis{config: config}
	if err := r.openDir("barid-redis-", config.Dir, config.StartTimeout); err != nil {
		return nil, err
	}
	if err := r.startNew(ctx, func() error { return r.setUp(path) }); err != nil {
		return nil, err
	}
	return r, nil
}

// StartRedis is NewRedis for a test. It fails the test when the server doesn't
// start, closes the server at the test's end, and shows the end of the server's
// log when the test failed. It skips the test under go test -short.
func StartRedis(tb testing.TB, config RedisConfig) *Redis {
	tb.Helper()
	skipShort(tb, "Redis")
	r, err := NewRedis(context.WithoutCancel(tb.Context()), config)
	if err != nil {
		tb.Fatal(err)
	}
	r.closeAtEnd(tb)
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

// ask asks the server for its process ID, which shows that this server listens
// on the port, and not another one. A server with a password is not asked more.
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

// BusPort is the port on 127.0.0.1 at which a node of a cluster listens to the
// others, and 0 without RedisConfig.Cluster.
func (r *Redis) BusPort() int { return r.bus }
