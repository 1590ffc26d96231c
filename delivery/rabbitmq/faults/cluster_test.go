package faults

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
)

// rabbitHome is where Debian keeps RabbitMQ's own scripts.
const rabbitHome = "/usr/lib/rabbitmq/bin"

// clusterStart bounds the start of nodes on a busy machine.
const clusterStart = 3 * time.Minute

// rejoinPatience is how long a node may take to come back by itself.
const rejoinPatience = time.Minute

// cluster is three RabbitMQ nodes, each in a network namespace of its own. One bridge
// connects them with each other, another one with clients.
type cluster struct {
	r     *rowTest
	nodes [3]*node
}

// node is one of them.
type node struct {
	r         *rowTest
	namespace string
	dir       string
	env       []string
	addr      string    // for clients
	peers     *vethLink // to the other nodes
	server    *daemon
}

// needCluster returns why there can be no cluster, or "".
func needCluster() string {
	if why := needNamespaces(); why != "" {
		return why
	}
	if _, err := os.Stat(filepath.Join(rabbitHome, "rabbitmq-server")); err != nil {
		return err.Error()
	}
	if _, err := exec.LookPath("epmd"); err != nil {
		return err.Error()
	}
	return ""
}

func (r *rowTest) cluster() *cluster {
	r.Helper()
	peers, clients := r.bridge("p", ""), r.bridge("c", clientNet+".1")
	cookie := rand.Text()
	c := &cluster{r: r}
	var conf strings.Builder
	conf.WriteString("loopback_users = none\nlog.console.level = info\nnet_ticktime = 5\n" +
		"cluster_partition_handling = pause_minority\ncluster_formation.peer_discovery_backend = classic_config\n")
	for i := range c.nodes {
		fmt.Fprintf(&conf, "cluster_formation.classic_config.nodes.%d = rabbit@%s.%d\n", i+1, clusterNet, 11+i)
	}
	for i := range c.nodes {
		n := &node{r: r, namespace: r.namespace(fmt.Sprint("node", i+1)), addr: fmt.Sprintf("%s.%d:5672", clientNet, 11+i)}
		c.nodes[i] = n
		n.peers = r.connect(n.namespace, "p0", peers, fmt.Sprintf("%s.%d", clusterNet, 11+i))
		r.connect(n.namespace, "c0", clients, fmt.Sprintf("%s.%d", clientNet, 11+i))
		n.prepare(fmt.Sprintf("rabbit@%s.%d", clusterNet, 11+i), cookie, conf.String())
	}
	for _, n := range c.nodes {
		n.server.start()
	}
	c.await()
	return c
}

func (n *node) prepare(name, cookie, conf string) {
	n.r.Helper()
	n.dir = n.r.TempDir()
	write := func(file, text string, mode os.FileMode) {
		require.NoError(n.r, os.WriteFile(filepath.Join(n.dir, file), []byte(text), mode))
	}
	write(".erlang.cookie", cookie, 0o400)
	write("rabbitmq.conf", conf, 0o600)
	write("plugins", "[].\n", 0o600)
	for _, entry := range os.Environ() {
		if variable, _, _ := strings.Cut(entry, "="); !strings.HasPrefix(variable, "RABBITMQ_") && !strings.HasPrefix(variable, "ERL_") && variable != "HOME" {
			n.env = append(n.env, entry)
		}
	}
	n.env = append(n.env,
		"HOME="+n.dir, "RABBITMQ_NODENAME="+name, "RABBITMQ_USE_LONGNAME=true", "RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_MNESIA_BASE="+filepath.Join(n.dir, "data"), "RABBITMQ_LOG_BASE="+filepath.Join(n.dir, "log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_PID_FILE="+filepath.Join(n.dir, "rabbitmq.pid"), "RABBITMQ_CONFIG_FILE="+filepath.Join(n.dir, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(n.dir, "plugins"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput +S 1:1", "ERL_CRASH_DUMP="+filepath.Join(n.dir, "erl_crash.dump"))
	epmd := n.daemon("epmd", "epmd")
	epmd.start()
	n.server = n.daemon("rabbitmq-server", filepath.Join(rabbitHome, "rabbitmq-server"))
	n.r.atEnd(func() {
		n.server.kill()
		epmd.kill()
	})
}

// await waits until all three nodes see each other.
func (c *cluster) await() {
	c.r.Helper()
	for _, n := range c.nodes {
		out, ok := n.seesAll(clusterStart)
		require.True(c.r, ok, "%s: %s\n%s", n.namespace, out, n.server.tail())
	}
}

// seesAll waits until the node sees the others.
func (n *node) seesAll(patience time.Duration) (out []byte, ok bool) {
	n.r.Helper()
	ctx, cancel := context.WithTimeout(n.r.ctx, patience)
	defer cancel()
	for {
		command := exec.CommandContext(ctx, "ip", "netns", "exec", n.namespace,
			filepath.Join(rabbitHome, "rabbitmqctl"), "-q", "await_online_nodes", "3", "--timeout", "60")
		command.Env, command.Dir = n.env, n.dir
		out, err := command.CombinedOutput()
		if err == nil || ctx.Err() != nil {
			return out, err == nil
		}
		n.r.wait(500 * time.Millisecond)
	}
}

// rejoins waits until the node, which was cut off, is back with the others. Now and
// then one does not come back, because it has stopped itself as a minority. Then it
// is started again, as an operator would do.
func (c *cluster) rejoins(n *node) {
	c.r.Helper()
	if _, ok := n.seesAll(rejoinPatience); !ok {
		n.server.kill()
		n.server.start()
		c.r.note("the node had to be started again")
	}
	c.await()
}

// url leads to any node that accepts a client.
func (c *cluster) url() string {
	c.r.Helper()
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.addr)
	}
	y := c.r.relay(c.r.listenLocally(), addrs...)
	return "amqp://guest:guest@" + y.listener.Addr().String() + "/"
}
