package faults

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rabbitHome is where Debian keeps RabbitMQ's own scripts.
const rabbitHome = "/usr/lib/rabbitmq/bin"

// clusterStart bounds the start of nodes on a busy machine.
const clusterStart = 3 * time.Minute

// rejoinPatience is for how long a node may take to come back by itself.
const rejoinPatience = time.Minute

// cluster is three RabbitMQ nodes, each in a network namespace of its own, on a
// bridge for themselves and another one for clients.
type cluster struct {
	r     *rig
	nodes [3]*node
}

// node is one of them.
type node struct {
	r         *rig
	namespace string
	dir       string
	env       []string
	addr      string // for clients
	peers     *cable // to the other nodes
	server    *daemon
}

// needCluster tells why there can be no cluster.
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

func (r *rig) cluster() *cluster {
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
		n.setUp(fmt.Sprintf("rabbit@%s.%d", clusterNet, 11+i), cookie, conf.String())
	}
	for _, n := range c.nodes {
		n.server.start()
	}
	c.await()
	return c
}

func (n *node) setUp(name, cookie, conf string) {
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
	n.r.later(func() {
		n.server.kill()
		epmd.kill()
	})
}

// await waits until all three see each other.
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

// rejoins has the node, which was cut off, come back to the others. Now and then
// one does not, having stopped itself as a minority; then it is started again,
// as an operator would.
func (c *cluster) rejoins(n *node) {
	c.r.Helper()
	if _, ok := n.seesAll(rejoinPatience); !ok {
		n.server.kill()
		n.server.start()
		c.r.note("the node had to be started again")
	}
	c.await()
}

// url leads to whichever node lets a client in.
func (c *cluster) url() string {
	c.r.Helper()
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.addr)
	}
	y := c.r.relay(c.r.loopback(), addrs...)
	return "amqp://guest:guest@" + y.listener.Addr().String() + "/"
}

// daemon is a program in a node's namespace that can be started again.
type daemon struct {
	node    *node
	name    string
	program string
	process *os.Process
	ended   chan struct{}
}

func (n *node) daemon(name, program string) *daemon {
	return &daemon{node: n, name: name, program: program}
}

// start starts it, and a goroutine that keeps its thread for as long as the
// program lives: the kernel ties the two together.
func (d *daemon) start() {
	r := d.node.r
	r.Helper()
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(r, err)
	defer log.Close() //nolint:errcheck // the program has its own descriptor
	command := exec.Command("ip", "netns", "exec", d.node.namespace, d.program)
	command.Env, command.Dir, command.Stdout, command.Stderr = d.node.env, d.node.dir, log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait()
			close(ended)
		}
	}()
	require.NoError(r, <-started)
	d.process, d.ended = command.Process, ended
}

// kill ends it at once, with all that it started.
func (d *daemon) kill() {
	if d.process == nil {
		return
	}
	syscall.Kill(-d.process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
	<-d.ended
	d.process = nil
}

func (d *daemon) log() string { return filepath.Join(d.node.dir, d.name+".log") }

func (d *daemon) tail() string {
	text, _ := os.ReadFile(d.log())
	return string(text[max(0, len(text)-3000):])
}

func clusterRows() []row {
	return []row{
		{
			number: 13, fault: "node cut off, 3-node quorum", how: "cluster link of the node that serves us cut in silence for 25 s",
			promise: "goes on with the majority", needs: needCluster, run: nodeCutOff,
		},
		{
			number: 14, fault: "quorum lost", how: "SIGKILL of 2 of 3 nodes, started again after 10 s",
			promise: "nothing accepted meanwhile, no loss after the heal", needs: needCluster, run: quorumLost,
		},
	}
}

func nodeCutOff(r *rig) {
	c := r.cluster()
	p := r.pipeline(setup{amqp: c.url()})
	p.traffic()
	p.flows(500)
	begin := time.Now()
	c.nodes[0].peers.pull()
	p.eventually(func() bool { return p.disconnects("publish") > 0 }, "the minority does not close our connections")
	p.flows(500)
	r.note("the majority went on after %.1f s", time.Since(begin).Seconds())
	r.wait(25*time.Second - time.Since(begin))
	c.nodes[0].peers.plugIn()
	p.flows(500)
	c.rejoins(c.nodes[0])
	p.finish()
	p.copies(2) // once the node is cut off, and once when it is back
}

func quorumLost(r *rig) {
	c := r.cluster()
	p := r.pipeline(setup{amqp: c.url(), timeout: 3 * time.Second})
	p.traffic()
	p.flows(500)
	for _, n := range c.nodes[1:] {
		n.server.kill()
	}
	// What two had stored already may be confirmed a little later.
	p.stands(func() int { return int(p.accepted.Load()) }, 300, 7*time.Second, "accepted without a majority")
	assert.Positive(r, p.refusedAs("unknown"))
	for _, n := range c.nodes[1:] {
		n.server.start()
	}
	c.await()
	p.flows(500)
	p.finish()
	p.copies(2)
}
