package servers

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RabbitMQConfig configures a RabbitMQ. The zero value is a server with
// RabbitMQ's own defaults.
type RabbitMQConfig struct {
	// Dir holds the server's data. Empty means a temporary folder, which is removed
	// at the end. A folder that is named must exist, and stays.
	Dir string
	// Conf is added to rabbitmq.conf, in its format: one key = value per line.
	Conf string
	// Schedulers is how many threads run Erlang code at once. Default 1, to leave
	// the other cores to the tests.
	Schedulers int
	// StartTimeout bounds each start. Default 2 minutes, for a busy machine: an
	// idle one needs some seconds.
	StartTimeout time.Duration
}

// RabbitMQ is a private RabbitMQ server with the user guest, the password
// guest, and the virtual host /. Its methods may be called by any number of
// goroutines at once.
type RabbitMQ struct {
	Server
	config   RabbitMQConfig
	scripts  string
	node     string
	distPort int
	epmdPort int
}

// NewRabbitMQ starts a RabbitMQ, and returns when it takes connections. End it
// with Close. It fails with ErrMissing when RabbitMQ is not installed, and with
// ErrNotReady when the server does not answer by ctx's end or within
// StartTimeout.
func NewRabbitMQ(ctx context.Context, config RabbitMQConfig) (*RabbitMQ, error) {
	if config.Schedulers <= 0 {
		config.Schedulers = 1
	}
	scripts, err := findRabbitMQ()
	if err != nil {
		return nil, err
	}
	epmd, err := findProgram("epmd", "", EnvAMQPURL, "it comes with Erlang, as RabbitMQ's package does")
	if err != nil {
		return nil, err
	}
	r := &RabbitMQ{config: config, scripts: scripts, node: "barid" + strings.ToLower(rand.Text()[:12])}
	if err := r.openDir("barid-rabbitmq-", config.Dir, config.StartTimeout); err != nil {
		return nil, err
	}
	if err := r.startNew(ctx, func() error { return r.setUp(epmd) }); err != nil {
		return nil, err
	}
	return r, nil
}

// StartRabbitMQ is NewRabbitMQ for a test. It fails the test when the server
// doesn't start, closes the server at the test's end, and shows the end of the
// server's log when the test failed. It skips the test under go test -short.
func StartRabbitMQ(tb testing.TB, config RabbitMQConfig) *RabbitMQ {
	tb.Helper()
	skipShort(tb, "RabbitMQ")
	r, err := NewRabbitMQ(context.WithoutCancel(tb.Context()), config)
	if err != nil {
		tb.Fatal(err)
	}
	r.closeAtEnd(tb)
	return r
}

// setUp chooses ports, and prepares the processes.
func (r *RabbitMQ) setUp(program string) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	r.port, r.distPort, r.epmdPort = ports[0], ports[1], ports[2]
	if err := r.writeFiles(); err != nil {
		return err
	}
	// A shared epmd would stay as a daemon after the test. This one runs in the
	// foreground, and ends with the server.
	epmd := &process{
		name: "epmd",
		path: program,
		args: []string{"-port", strconv.Itoa(r.epmdPort), "-address", "127.0.0.1"},
		env:  append(bareEnv(), "HOME="+r.home()),
		dir:  r.dir,
		log:  filepath.Join(r.dir, "epmd.log"),
		ready: func(ctx context.Context, _ int) error {
			conn, err := dial(ctx, r.epmdPort)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}
	r.dependencies = []*process{epmd}
	r.server = &process{
		name:  "rabbitmq-server",
		path:  filepath.Join(r.scripts, "rabbitmq-server"),
		env:   append(r.env(), "RABBITMQ_ALLOW_INPUT=1"),
		dir:   r.dir,
		log:   filepath.Join(r.dir, "rabbitmq.log"),
		ready: r.handshake,
	}
	return nil
}

func (r *RabbitMQ) home() string { return filepath.Join(r.dir, "home") }

// writeFiles writes the files that the server reads, and keeps those that must
// stay the same over restarts.
func (r *RabbitMQ) writeFiles() error {
	cookie := filepath.Join(r.home(), ".erlang.cookie")
	if err := os.MkdirAll(r.home(), 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(cookie); err != nil {
		if err := os.WriteFile(cookie, []byte(rand.Text()), 0o400); err != nil {
			return err
		}
	}
	// A folder that was used before belongs to a node with that name.
	name := filepath.Join(r.dir, "node")
	if known, err := os.ReadFile(name); err == nil {
		r.node = string(known)
	} else if err := os.WriteFile(name, []byte(r.node), 0o600); err != nil {
		return err
	}
	conf := "loopback_users = none\nlog.console.level = info\n" + r.config.Conf + "\n"
	if err := os.WriteFile(filepath.Join(r.dir, "rabbitmq.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "plugins"), []byte("[].\n"), 0o600)
}

// env configures the server and rabbitmqctl. The server also gets
// RABBITMQ_ALLOW_INPUT, which makes the start script turn into the Erlang VM
// instead of staying its parent, so that signals reach the VM.
func (r *RabbitMQ) env() []string {
	return append(bareEnv(),
		"HOME="+r.home(),
		"RABBITMQ_NODENAME="+r.node+"@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+strconv.Itoa(r.port),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(r.distPort),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(r.dir, "data"),
		"RABBITMQ_LOG_BASE="+filepath.Join(r.dir, "log"),
		"RABBITMQ_LOGS=-",
		"RABBITMQ_PID_FILE="+filepath.Join(r.dir, "rabbitmq.pid"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(r.dir, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(r.dir, "plugins"),
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -kernel inet_dist_use_interface {127,0,0,1}"+
			fmt.Sprintf(" +S %d:%d", r.config.Schedulers, r.config.Schedulers),
		"RABBITMQ_CTL_DIST_PORT_MIN=0",
		"RABBITMQ_CTL_DIST_PORT_MAX=0",
		"ERL_EPMD_PORT="+strconv.Itoa(r.epmdPort),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP="+filepath.Join(r.dir, "erl_crash.dump"),
	)
}

// handshake begins AMQP 0-9-1's handshake, and reads the server's
// Connection.Start (AMQP 0-9-1, 2.2.4 and 4.2.2). It has the node's name as
// that of the cluster, which shows that this server listens on the port, and
// not another one.
func (r *RabbitMQ) handshake(ctx context.Context, _ int) error {
	conn, err := dial(ctx, r.port)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is sent after the greeting
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	var header [7]byte // type, channel, size
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return err
	}
	start, err := io.ReadAll(io.LimitReader(conn, int64(min(binary.BigEndian.Uint32(header[3:]), 64<<10))))
	if err != nil {
		return err
	}
	if !strings.Contains(string(start), r.node+"@") {
		return fmt.Errorf("servers: port %d is another server's", r.port)
	}
	return nil
}

// URL is where clients connect: amqp://guest:guest@127.0.0.1:port/. It stays
// the same over restarts.
func (r *RabbitMQ) URL() string { return "amqp://guest:guest@" + r.Addr() + "/" }

// Ctl runs rabbitmqctl with args on the server, for instance Ctl(ctx,
// "list_queues", "name", "messages"), and returns what it printed, without its
// informational messages. It takes about half a second. The error has
// rabbitmqctl's own.
func (r *RabbitMQ) Ctl(ctx context.Context, args ...string) (string, error) {
	var out, complaint strings.Builder
	command := exec.CommandContext(ctx, filepath.Join(r.scripts, "rabbitmqctl"), append([]string{"-q"}, args...)...)
	command.Env = r.env()
	command.Dir = r.dir
	command.Stdout, command.Stderr = &out, &complaint
	command.WaitDelay = time.Second
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			return out.String(), ctx.Err()
		}
		return out.String(), fmt.Errorf("servers: rabbitmqctl %s: %w: %s", args, err, strings.TrimSpace(complaint.String()+out.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Alarm is a resource. RabbitMQ blocks publishers when it is short of one.
type Alarm string

// The alarms.
const (
	MemoryAlarm Alarm = "memory"
	DiskAlarm   Alarm = "disk"
)

// SetAlarm makes the server believe that it is short of the resource: it blocks
// every connection that publishes, until ClearAlarm is called.
func (r *RabbitMQ) SetAlarm(ctx context.Context, alarm Alarm) error {
	_, err := r.Ctl(ctx, "eval", fmt.Sprintf("rabbit_alarm:set_alarm({{resource_limit, %s, node()}, []}).", alarm))
	return err
}

// ClearAlarm undoes SetAlarm.
func (r *RabbitMQ) ClearAlarm(ctx context.Context, alarm Alarm) error {
	_, err := r.Ctl(ctx, "eval", fmt.Sprintf("rabbit_alarm:clear_alarm({resource_limit, %s, node()}).", alarm))
	return err
}
