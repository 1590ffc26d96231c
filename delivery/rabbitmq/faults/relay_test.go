package faults

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
)

// relay forwards TCP connections to the first of several servers that accepts,
// beginning with the one that accepted last.
type relay struct {
	listener net.Listener
	servers  []string
	running  sync.WaitGroup
	flow     sync.RWMutex // held for writing, nothing gets through

	mu     sync.Mutex
	last   int
	conns  map[net.Conn]struct{}
	closed bool
}

// relay forwards the connections of the listener, which it closes at the row's end.
func (r *rowTest) relay(listener net.Listener, servers ...string) *relay {
	y := &relay{listener: listener, servers: servers, conns: map[net.Conn]struct{}{}}
	y.running.Go(y.accept)
	r.atEnd(y.close)
	return y
}

func (y *relay) accept() {
	for {
		client, err := y.listener.Accept()
		if err != nil {
			return
		}
		y.running.Go(func() { y.serve(client) })
	}
}

func (y *relay) serve(client net.Conn) {
	server, err := y.dial()
	if err != nil {
		client.Close() //nolint:errcheck // refused, in effect
		return
	}
	y.mu.Lock()
	closed := y.closed
	y.conns[client], y.conns[server] = struct{}{}, struct{}{}
	y.mu.Unlock()
	if closed {
		client.Close() //nolint:errcheck // it is over
		server.Close() //nolint:errcheck // it is over
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			// Wrapped, so that io.Copy does not splice in the kernel: its pipes would
			// show as a leak of descriptors.
			io.Copy(gatedWriter{way[0], &y.flow}, struct{ io.Reader }{way[1]}) //nolint:errcheck // ends when either side does
			way[0].Close()                                                     //nolint:errcheck // nothing is left to do
			way[1].Close()                                                     //nolint:errcheck // nothing is left to do
		})
	}
	both.Wait()
	y.mu.Lock()
	delete(y.conns, client)
	delete(y.conns, server)
	y.mu.Unlock()
}

func (y *relay) dial() (net.Conn, error) {
	y.mu.Lock()
	first := y.last
	y.mu.Unlock()
	var faults []error
	for i := range y.servers {
		at := (first + i) % len(y.servers)
		conn, err := net.DialTimeout("tcp", y.servers[at], time.Second)
		if err == nil {
			y.mu.Lock()
			y.last = at
			y.mu.Unlock()
			return conn, nil
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}

// gatedWriter holds writes while nothing may get through.
type gatedWriter struct {
	to   io.Writer
	flow *sync.RWMutex
}

func (v gatedWriter) Write(p []byte) (int, error) {
	v.flow.RLock()
	defer v.flow.RUnlock()
	return v.to.Write(p)
}

// stall lets nothing through, with all connections open, until what it returns
// is called.
func (y *relay) stall() (resume func()) {
	y.flow.Lock()
	return y.flow.Unlock
}

// cut ends all connections; new ones can be made.
func (y *relay) cut() {
	y.mu.Lock()
	defer y.mu.Unlock()
	for conn := range y.conns {
		conn.Close() //nolint:errcheck // the other sides are to notice
	}
}

func (y *relay) close() {
	y.listener.Close() //nolint:errcheck // closed is what is wanted
	y.mu.Lock()
	y.closed = true
	y.mu.Unlock()
	y.cut()
	y.running.Wait()
}

// listenLocally listens on a free port of the loopback.
func (r *rowTest) listenLocally() net.Listener {
	r.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r, err)
	return listener
}
