package servers

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// EnvDistance has the URLs of Shared lead to far servers: "50ms" delays
// everything by 50 milliseconds each way.
const EnvDistance = "BARID_TEST_DISTANCE"

// Distance is how far the servers are whose URLs Shared returns, each way: what
// BARID_TEST_DISTANCE says, or else 0. A test that waits for many round trips
// waits longer by so many of them.
func Distance(tb testing.TB) time.Duration {
	tb.Helper()
	value := os.Getenv(EnvDistance)
	if value == "" {
		return 0
	}
	distance, err := time.ParseDuration(value)
	if err == nil && distance < 0 {
		err = errors.New("a distance is not negative")
	}
	if err != nil {
		tb.Fatalf("servers: %s: %v", EnvDistance, err)
	}
	return distance
}

// Parallel has the test run in parallel with others when its servers are far,
// since it waits most of the time then.
func Parallel(tb testing.TB) {
	tb.Helper()
	if t, ok := tb.(interface{ Parallel() }); ok && Distance(tb) > 0 {
		t.Parallel()
	}
}

// Far is the URL of the server that location names, by way of a relay that
// delays everything by distance each way. The connections themselves are made
// without a delay. The relay ends with the test.
func Far(tb testing.TB, location string, distance time.Duration) string {
	tb.Helper()
	r, err := NewRelay(location, distance)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.Close)
	return r.URL()
}

// defaultPorts are those of URLs without a port.
var defaultPorts = map[string]string{
	"amqp": "5672", "amqps": "5671", "redis": "6379", "rediss": "6379", "postgres": "5432", "postgresql": "5432",
}

// Relay stands between clients and a server, and delays everything each way. The
// connections themselves are made without a delay.
type Relay struct {
	url      string // of the server, by way of the relay
	server   string
	distance time.Duration
	listener net.Listener
	running  sync.WaitGroup
	closed   chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// NewRelay starts a relay to the server that location, a URL, names. End it with Close.
func NewRelay(location string, distance time.Duration) (*Relay, error) {
	parsed, err := url.Parse(location)
	if err != nil {
		return nil, errors.New("servers: the URL of the far server can't be parsed") // it may hold a password
	}
	port := parsed.Port()
	if port == "" {
		port = defaultPorts[parsed.Scheme]
	}
	if parsed.Hostname() == "" || port == "" {
		return nil, errors.New("servers: the URL of the far server names no host and port")
	}
	listener, err := net.Listen("tcp", loopback(0)) //nolint:noctx // returns at once
	if err != nil {
		return nil, fmt.Errorf("servers: relay: %w", err)
	}
	r := &Relay{
		server: net.JoinHostPort(parsed.Hostname(), port), distance: distance,
		listener: listener, closed: make(chan struct{}), conns: make(map[net.Conn]struct{}),
	}
	parsed.Host = listener.Addr().String()
	r.url = parsed.String()
	r.running.Go(r.accept)
	return r, nil
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.server) //nolint:noctx // the server is on this machine, or a test of its own
		if err != nil {
			client.Close() //nolint:errcheck // a server that is down
			continue
		}
		if !r.add(client, server) {
			return
		}
		r.running.Go(func() { r.carry(client, server) })
		r.running.Go(func() { r.carry(server, client) })
	}
}

// add notes a pair of connections, unless the relay is closed.
func (r *Relay) add(client, server net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.closed:
		client.Close() //nolint:errcheck // closed is what is wanted
		server.Close() //nolint:errcheck // closed is what is wanted
		return false
	default:
		r.conns[client], r.conns[server] = struct{}{}, struct{}{}
		return true
	}
}

// carry carries what one side sends to the other, in order and late. What was on
// its way when that side closed its connection still arrives.
func (r *Relay) carry(to, from net.Conn) {
	defer r.remove(to, from)
	type packet struct {
		bytes []byte
		due   time.Time
	}
	onTheWay := make(chan packet, 1<<12)
	r.running.Go(func() {
		defer close(onTheWay)
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			onTheWay <- packet{slices.Clone(buffer[:n]), time.Now().Add(r.distance)}
		}
	})
	var err error
	for p := range onTheWay {
		if err != nil {
			continue // until the other goroutine has ended
		}
		select {
		case <-time.After(time.Until(p.due)):
			_, err = to.Write(p.bytes)
		case <-r.closed:
			err = net.ErrClosed
		}
		if err != nil {
			from.Close() //nolint:errcheck // nothing can be carried any more
		}
	}
}

func (r *Relay) remove(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range conns {
		conn.Close() //nolint:errcheck // nothing is left to do
		delete(r.conns, conn)
	}
}

// URL is where clients connect: the server's, by way of the relay.
func (r *Relay) URL() string { return r.url }

// Close ends the relay, and returns when it has ended.
func (r *Relay) Close() {
	r.listener.Close() //nolint:errcheck // closed is what is wanted
	r.mu.Lock()
	close(r.closed)
	for conn := range r.conns {
		conn.Close() //nolint:errcheck // closed is what is wanted
	}
	r.mu.Unlock()
	r.running.Wait()
}

// farServers are the relays of a Shared, by the server's URL.
type farServers struct {
	mu     sync.Mutex
	relays map[string]*Relay
}

// far is the URL of the server at the distance that the environment asks for.
func (f *farServers) far(tb testing.TB, location string) string {
	tb.Helper()
	distance := Distance(tb)
	if distance == 0 {
		return location
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.relays[location]; r != nil {
		return r.url
	}
	r, err := NewRelay(location, distance)
	if err != nil {
		tb.Fatal(err)
	}
	if f.relays == nil {
		f.relays = make(map[string]*Relay)
	}
	f.relays[location] = r
	return r.url
}

func (f *farServers) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.relays {
		r.Close()
	}
	f.relays = nil
}
