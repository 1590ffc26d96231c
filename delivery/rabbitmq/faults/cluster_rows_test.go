package faults

import (
	"time"

	"github.com/stretchr/testify/assert"
)

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

func nodeCutOff(r *rowTest) {
	c := r.cluster()
	p := r.pipeline(pipelineConfig{amqp: c.url()})
	p.startTraffic()
	p.awaitMore(500)
	begin := time.Now()
	c.nodes[0].peers.detach()
	p.eventually(func() bool { return p.disconnects("publish") > 0 }, "the minority does not close our connections")
	p.awaitMore(500)
	r.note("the majority went on after %.1f s", time.Since(begin).Seconds())
	r.wait(25*time.Second - time.Since(begin))
	c.nodes[0].peers.attach()
	p.awaitMore(500)
	c.rejoins(c.nodes[0])
	p.finish()
	p.checkCopies(2) // once the node is cut off, and once when it is back
}

func quorumLost(r *rowTest) {
	c := r.cluster()
	p := r.pipeline(pipelineConfig{amqp: c.url(), timeout: 3 * time.Second})
	p.startTraffic()
	p.awaitMore(500)
	for _, n := range c.nodes[1:] {
		n.server.kill()
	}
	// What two had stored already may be confirmed a little later.
	p.awaitUnchanged(func() int { return int(p.accepted.Load()) }, 300, 7*time.Second, "accepted without a majority")
	assert.Positive(r, p.refusedAs("unknown"))
	for _, n := range c.nodes[1:] {
		n.server.start()
	}
	c.await()
	p.awaitMore(500)
	p.finish()
	p.checkCopies(2)
}
