package rabbitmq

import (
	"crypto/tls"
	"io"
	"net"
	neturl "net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// network stands between a transport and its broker, and can break.
type network struct {
	url      string // of the broker, by way of this network
	broker   string
	listener net.Listener
	running  sync.WaitGroup
	flow     sync.RWMutex // held for writing, nothing gets through

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func newNetwork(tb testing.TB, url string) *network { return newSecureNetwork(tb, url, nil) }

// newSecureNetwork is a network that speaks TLS to the client, unless secure is
// nil.
func newSecureNetwork(tb testing.TB, url string, secure *tls.Config) *network {
	tb.Helper()
	parsed, err := neturl.Parse(url)
	require.NoError(tb, err)
	n := &network{broker: parsed.Host, conns: make(map[net.Conn]struct{})}
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
		n.running.Go(func() { n.carry(client, server) })
		n.running.Go(func() { n.carry(server, client) })
	}
}

func (n *network) carry(to, from net.Conn) {
	io.Copy(gate{to, &n.flow}, from) //nolint:errcheck // ends when either side does
	to.Close()                       //nolint:errcheck // nothing is left to do
	from.Close()                     //nolint:errcheck // nothing is left to do
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
