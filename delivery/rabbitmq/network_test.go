package rabbitmq

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	neturl "net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	gather   time.Duration           // see newCountingNetwork

	mu     sync.Mutex
	rounds []int // by connection, the oldest first
	conns  map[net.Conn]struct{}
	closed bool
}

func newNetwork(tb testing.TB, url string) *network { return startNetwork(tb, url, nil, &network{}) }

// newCountingNetwork is a network that counts round trips. What a client sends is
// gathered for some time and then goes on together, as one round. A client that
// waits for an answer thus needs another round, and one that sends several requests
// before it waits does not.
func newCountingNetwork(tb testing.TB, url string) *network {
	return startNetwork(tb, url, nil, &network{gather: 100 * time.Millisecond})
}

// mostRounds is how many rounds there were, of the connection with most of them
// from the given one on.
func (n *network) mostRounds(from int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Max(n.rounds[from:])
}

// allRounds is how many rounds there were of all connections from the given one on, as if
// each had waited for the others.
func (n *network) allRounds(from int) (sum int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, rounds := range n.rounds[from:] {
		sum += rounds
	}
	return sum
}

// connected is how many connections there have been.
func (n *network) connected() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.rounds)
}

// newSecureNetwork is a network that speaks TLS to the client.
func newSecureNetwork(tb testing.TB, url string, secure *tls.Config) *network {
	return startNetwork(tb, url, secure, &network{})
}

// newLossyNetwork is a network in which the frames from the broker get lost for
// which loses says so.
func newLossyNetwork(tb testing.TB, url string, loses func(frame []byte) bool) *network {
	return startNetwork(tb, url, nil, &network{loses: loses})
}

func startNetwork(tb testing.TB, url string, secure *tls.Config, n *network) *network {
	tb.Helper()
	parsed, err := neturl.Parse(url)
	require.NoError(tb, err)
	n.broker, n.conns = parsed.Host, make(map[net.Conn]struct{})
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
		number := len(n.rounds)
		n.rounds = append(n.rounds, 0)
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
		if n.gather > 0 {
			n.running.Go(func() { n.carryRounds(server, client, number) })
		} else {
			n.running.Go(func() { n.carry(server, client) })
		}
	}
}

func (n *network) carry(to, from net.Conn) {
	defer n.over(to, from)
	io.Copy(gate{to, &n.flow}, from) //nolint:errcheck // ends when either side does
}

// carryRounds carries what the client sends in rounds, and counts them.
func (n *network) carryRounds(to, from net.Conn, number int) {
	defer n.over(to, from)
	chunk := make([]byte, 32<<10)
	for {
		from.SetReadDeadline(time.Time{}) //nolint:errcheck // then the read fails
		count, err := from.Read(chunk)
		if err != nil {
			return
		}
		round := slices.Clone(chunk[:count])
		n.mu.Lock()
		n.rounds[number]++
		n.mu.Unlock()
		from.SetReadDeadline(time.Now().Add(n.gather)) //nolint:errcheck // then the read fails
		for err == nil {
			count, err = from.Read(chunk)
			round = append(round, chunk[:count]...)
		}
		if _, err := to.Write(round); err != nil {
			return
		}
	}
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
