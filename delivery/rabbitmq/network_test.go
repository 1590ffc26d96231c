package rabbitmq

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	neturl "net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// network stands between a transport and its broker, and can break.
type network struct {
	url      string // of the broker, by way of this network
	broker   string
	listener net.Listener
	running  sync.WaitGroup
	flow     sync.RWMutex            // held for writing, nothing gets through
	loses    func(frame []byte) bool // nil when nothing gets lost
	down     atomic.Bool             // new connections end at once

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func newNetwork(tb testing.TB, url string) *network { return startNetwork(tb, url, nil, nil) }

// newSecureNetwork is a network that speaks TLS to the client.
func newSecureNetwork(tb testing.TB, url string, secure *tls.Config) *network {
	return startNetwork(tb, url, secure, nil)
}

// newLossyNetwork is a network in which the frames from the broker get lost for
// which loses says so.
func newLossyNetwork(tb testing.TB, url string, loses func(frame []byte) bool) *network {
	return startNetwork(tb, url, nil, loses)
}

func startNetwork(tb testing.TB, url string, secure *tls.Config, loses func(frame []byte) bool) *network {
	tb.Helper()
	parsed, err := neturl.Parse(url)
	require.NoError(tb, err)
	n := &network{broker: parsed.Host, loses: loses, conns: make(map[net.Conn]struct{})}
	n.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	parsed.Host = n.listener.Addr().String()
	if secure != nil {
		n.listener = tls.NewListener(n.listener, secure)
		parsed.Scheme = "amqps"
	}
	n.url = parsed.String()
	n.running.Go(n.accept)
	tb.Cleanup(n.close)
	return n
}

func (n *network) accept() {
	for {
		client, err := n.listener.Accept()
		if err != nil {
			return
		}
		if n.down.Load() {
			client.Close() //nolint:errcheck // that is what is wanted
			continue
		}
		server, err := net.Dial("tcp", n.broker)
		if err != nil {
			client.Close() //nolint:errcheck // a broker that is down
			continue
		}
		n.mu.Lock()
		n.conns[client], n.conns[server] = struct{}{}, struct{}{}
		closed := n.closed
		n.mu.Unlock()
		if closed {
			n.cut()
			return
		}
		if n.loses != nil {
			n.running.Go(func() { n.carryFrames(client, server) })
		} else {
			n.running.Go(func() { n.carry(client, server) })
		}
		n.running.Go(func() { n.carry(server, client) })
	}
}

func (n *network) carry(to, from net.Conn) {
	io.Copy(gate{to, &n.flow}, from) //nolint:errcheck // ends when either side does
	n.over(to, from)
}

// carryFrames carries all frames that do not get lost. A frame is its type, its
// channel and its size, what the size says, and an end (AMQP 0-9-1, 4.2.3).
func (n *network) carryFrames(to, from net.Conn) {
	defer n.over(to, from)
	for {
		frame := make([]byte, 7)
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame[3:])+1)...)
		if _, err := io.ReadFull(from, frame[7:]); err != nil {
			return
		}
		if n.loses(frame) {
			continue
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

func (n *network) over(to, from net.Conn) {
	to.Close()   //nolint:errcheck // nothing is left to do
	from.Close() //nolint:errcheck // nothing is left to do
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, to)
	delete(n.conns, from)
}

type gate struct {
	net.Conn
	flow *sync.RWMutex
}

func (g gate) Write(p []byte) (int, error) {
	g.flow.RLock()
	defer g.flow.RUnlock()
	return g.Conn.Write(p)
}

// ReadFrom keeps io.Copy from going around Write.
func (g gate) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{g}, r)
}

// stall lets nothing through, with all connections open, until what it returns
// is called.
func (n *network) stall() (resume func()) {
	n.flow.Lock()
	return n.flow.Unlock
}

// cut ends all connections; new ones can be made.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for conn := range n.conns {
		conn.Close() //nolint:errcheck // the other side is the one to notice
	}
}

// close ends all connections for good.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.listener.Close() //nolint:errcheck // closed is what is wanted
	n.cut()
	n.running.Wait()
}
