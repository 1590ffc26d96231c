package faults

import (
	"net"
	"os/exec"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/rabbitmq"
)

func networkRows() []row {
	return []row{
		{
			number: 8, fault: "RST", how: "ss -K, three times", promise: "second copies <= W + U",
			quick: true, needs: needSocketKiller, run: connectionsReset,
		},
		{
			number: 9, fault: "FIN", how: "proxy stopped for 1 s, twice", promise: "second copies <= W + U",
			quick: true, run: connectionsEnded,
		},
		{
			number: 10, fault: "half-open connections", how: "link of a network namespace cut in silence",
			promise: "freed within the write deadline, long before the heartbeat", needs: needNamespaces, run: linkCut,
		},
		{
			number: 11, fault: "zero window", how: "proxy with a bandwidth of 0",
			promise: "freed within the write deadline, long before the heartbeat", run: zeroWindow,
		},
		{
			number: 12, fault: "latency, slicing", how: "proxy adds 30±20 ms and cuts everything to pieces",
			promise: "slower only: no connection lost", quick: true, run: slowLink,
		},
		{
			number: 47, fault: "far broker", how: "proxy adds 50 ms each way from the first connection on, stopped for 1 s",
			promise: "opens, delivers and recovers all the same", run: farBroker,
		},
	}
}

// needSocketKiller returns why sockets can't be destroyed, or "". It tries one.
func needSocketKiller() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err.Error()
	}
	defer listener.Close() //nolint:errcheck // a probe
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err.Error()
	}
	defer conn.Close() //nolint:errcheck // a probe
	if err := killSockets(listener.Addr().String()); err != nil {
		return "ss -K: " + err.Error()
	}
	conn.SetReadDeadline(time.Now().Add(time.Second)) //nolint:errcheck // then the read fails
	_, err = conn.Read(make([]byte, 1))
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // of the socket itself
		return "ss -K does nothing on this kernel"
	}
	return ""
}

// killSockets destroys the connections to an address, with an RST.
func killSockets(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	return exec.Command("ss", "-K", "-t", "dst", host, "dport", "=", port).Run()
}

func connectionsReset(r *rowTest) {
	const times = 3
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	for range times {
		p.awaitMore(300)
		before := p.disconnects("publish")
		require.NoError(r, killSockets(r.broker.Addr()))
		p.eventually(func() bool { return p.disconnects("publish") > before }, "no connection was reset")
	}
	p.awaitMore(300)
	p.finish()
	p.checkCopies(times)
}

func connectionsEnded(r *rowTest) {
	n := r.network(r.broker.URL())
	p := r.pipeline(pipelineConfig{amqp: n.url})
	p.startTraffic()
	for range 2 {
		p.awaitMore(300)
		n.down()
		r.wait(time.Second)
		n.up()
	}
	p.awaitMore(300)
	p.finish()
	p.checkCopies(2)
}

func farBroker(r *rowTest) {
	n := r.network(r.broker.URL())
	for _, stream := range []string{"upstream", "downstream"} {
		n.add("latency", stream, 1, attributes{"latency": 50})
	}
	p := r.pipeline(pipelineConfig{amqp: n.url})
	p.startTraffic()
	p.awaitMore(300)
	n.down()
	r.wait(time.Second)
	n.up()
	p.awaitMore(300)
	p.finish()
	p.checkCopies(1)
}

const (
	stallWrite     = 3 * time.Second
	stallHeartbeat = 40 * time.Second
)

// stalling is a config with a short write deadline, and a heartbeat too long to help.
func stalling(url string) pipelineConfig {
	return pipelineConfig{
		amqp: url, timeout: time.Second,
		transport: func(c *rabbitmq.Config) { c.WriteTimeout, c.Heartbeat, c.Window = stallWrite, stallHeartbeat, 512 },
	}
}

// useLargeBodies makes messages so large that those of a stalled connection fill the
// buffers of the kernel before they fill the window.
func (p *pipeline) useLargeBodies() {
	p.Helper()
	p.body.Store(64 << 10)
	p.awaitMore(200)
}

// checkGivenUp checks that all publishing connections are given up in time.
func (p *pipeline) checkGivenUp(since time.Time) {
	p.Helper()
	defer p.body.Store(200)
	p.within(stallHeartbeat, func() bool {
		return len(p.log.since(since, "broker connection lost", "purpose=publish")) >= publishConnections
	}, "publishing connections are not given up")
	took := time.Since(since)
	assert.Less(p, took, stallHeartbeat/2, "given up by the heartbeat")
	p.note("publishing connections freed after %.1f s (write deadline %s, after the buffers are full)", took.Seconds(), stallWrite)
}

func linkCut(r *rowTest) {
	bridge := r.bridge("c", clientNet+".1")
	namespace := r.namespace("link")
	link := r.connect(namespace, "c0", bridge, clientNet+".2")
	r.relay(r.listenIn(namespace, clientNet+".2:5672"), r.broker.Addr())
	p := r.pipeline(stalling("amqp://guest:guest@" + clientNet + ".2:5672/"))
	p.startTraffic()
	p.awaitMore(300)
	p.useLargeBodies()
	cut := time.Now()
	link.detach()
	p.checkGivenUp(cut)
	assert.Positive(r, p.refusedAs("unknown"))
	link.attach()
	p.awaitMore(300)
	p.finish()
	p.checkCopies(1)
}

func zeroWindow(r *rowTest) {
	n := r.network(r.broker.URL())
	p := r.pipeline(stalling(n.url))
	p.startTraffic()
	p.awaitMore(300)
	p.useLargeBodies()
	begin := time.Now()
	n.stall()
	p.checkGivenUp(begin)
	assert.Positive(r, p.refusedAs("unknown"))
	n.restore()
	p.awaitMore(300)
	p.finish()
	p.checkCopies(1)
}

func slowLink(r *rowTest) {
	n := r.network(r.broker.URL())
	p := r.pipeline(pipelineConfig{amqp: n.url, timeout: patience})
	p.startTraffic()
	p.awaitMore(200)
	for _, stream := range []string{"upstream", "downstream"} {
		n.add("latency", stream, 1, attributes{"latency": 30, "jitter": 20})
		n.add("slicer", stream, 1, attributes{"average_size": 256, "size_variation": 128, "delay": 50})
	}
	p.awaitMore(1000)
	n.restore()
	p.finish()
	assert.Zero(r, p.disconnects(""), "connections lost")
	assert.Empty(r, p.refused())
}
