package rabbitmq

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// dialer makes connections to one broker.
type dialer struct {
	config ConnectionsConfig
	uri    amqp.URI
	nodes  []string     // host:port, the URL's first
	first  atomic.Int32 // index of the one that is tried first

	// The state of the broker, as the last tries to connect have found it.
	down  atomic.Bool
	back  broadcast                    // it answers again
	fault atomic.Pointer[ConnectError] // why it does not; nil when it does
}

// newDialer takes a config that is valid.
func newDialer(config ConnectionsConfig) *dialer {
	uri, _ := parseURL(config.URL) // it is valid
	return &dialer{config: config, uri: uri, nodes: append([]string{address(uri)}, config.Nodes...)}
}

// address is the node that is tried next, as host:port.
func (d *dialer) address() string { return d.nodes[d.first.Load()] }

// wait waits for d, unless ctx ends or the broker answers again. awake is what
// back.listen returned before the last try. The result says that the broker answers.
func (d *dialer) wait(ctx context.Context, delay time.Duration, awake <-chan struct{}) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-awake:
		return true
	}
	return false
}

// dial tries one node after the other, until one of them answers. The purpose is shown
// in the broker's list of connections.
func (d *dialer) dial(ctx context.Context, purpose string) (*connection, *ConnectError) {
	var fault *ConnectError
	for range d.nodes {
		first := d.first.Load()
		conn, err := d.dialNode(ctx, purpose, d.nodes[first])
		if err == nil {
			d.fault.Store(nil)
			if d.down.Swap(false) {
				d.back.notify()
			}
			return conn, nil
		}
		fault = &ConnectError{Address: d.nodes[first], Permanent: permanent(err), Cause: err}
		if fault.Permanent {
			break // it is not the node's
		}
		d.first.CompareAndSwap(first, (first+1)%int32(len(d.nodes))) //nolint:gosec // a list in a config is short
		if ctx.Err() != nil {
			return nil, fault // nobody waits any longer, which says little of the broker
		}
	}
	d.down.Store(true)
	d.fault.Store(fault)
	return nil, fault
}

// dialNode connects once, within DialTimeout and ctx.
func (d *dialer) dialNode(ctx context.Context, purpose, node string) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	// The client's dial knows no context. When ctx ends, the TCP connection is
	// closed below it.
	var tcp atomic.Pointer[tcpConn]
	kill := func() {
		if c := tcp.Load(); c != nil {
			c.kill()
		}
	}
	stop := context.AfterFunc(ctx, kill)
	conn, err := amqp.DialConfig(withAddress(d.config.URL, node), d.clientConfig(purpose, func(network, addr string) (net.Conn, error) {
		c, err := d.dialTCP(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tcp.Store(c)
		if err := ctx.Err(); err != nil {
			return nil, err // kill may have run before there was anything to close
		}
		return c, nil
	}))
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		kill()
		if deadline, _ := ctx.Deadline(); !time.Now().Before(deadline) {
			<-ctx.Done() // the socket's own timer may have been the first
		}
		if ctx.Err() != nil && !permanent(err) {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return nil, err
	}
	return newConnection(conn, tcp.Load(), node), nil
}

func (d *dialer) dialTCP(ctx context.Context, network, addr string) (*tcpConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return newTCPConn(conn, d.config.WriteTimeout), nil
}

func (d *dialer) clientConfig(purpose string, dial func(network, addr string) (net.Conn, error)) amqp.Config {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(strings.Join(strings.Fields("barid "+d.config.Name+" "+purpose), " "))
	config := amqp.Config{
		SASL:       d.logins(properties),
		Heartbeat:  d.config.Heartbeat,
		Properties: properties,
		Dial:       dial,
	}
	if d.config.TLS != nil {
		config.TLSClientConfig = d.config.TLS.Clone()
	}
	return config
}

// login is an Authentication that makes the broker answer a wrong password.
// Without it the broker closes the socket without a word, which looks like a
// broker that went down ("Authentication Failures", RabbitMQ: Compatibility and
// Conformance). The capability is set as late as this because the client
// overwrites the capabilities just before it asks for the response.
type login struct {
	amqp.Authentication
	properties amqp.Table
}

func (l *login) Response() string {
	if capabilities, ok := l.properties["capabilities"].(amqp.Table); ok {
		capabilities["authentication_failure_close"] = true
	}
	return l.Authentication.Response()
}

func (d *dialer) logins(properties amqp.Table) []amqp.Authentication {
	mechanisms := d.uri.AuthMechanism
	if len(mechanisms) == 0 {
		mechanisms = []string{"PLAIN"}
	}
	logins := make([]amqp.Authentication, 0, len(mechanisms))
	for _, mechanism := range mechanisms {
		var inner amqp.Authentication
		switch strings.ToUpper(mechanism) {
		case "AMQPLAIN":
			inner = d.uri.AMQPlainAuth()
		case "EXTERNAL":
			inner = &amqp.ExternalAuth{}
		default:
			inner = d.uri.PlainAuth()
		}
		logins = append(logins, &login{Authentication: inner, properties: properties})
	}
	return logins
}
