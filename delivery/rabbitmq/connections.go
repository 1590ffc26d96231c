package rabbitmq

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"
)

const (
	maxPublishConnections = 16
	maxHeartbeat          = 65535 * time.Second // 16 bits
)

// ConnectionsConfig configures Connections. URL is required, the rest has defaults.
type ConnectionsConfig struct {
	// URL of the broker: amqp://user:password@host:port/vhost, or amqps:// for
	// TLS. Reserved characters of user, password and vhost are percent-encoded
	// (RabbitMQ: "RabbitMQ URI Specification"). Required.
	URL string
	// Nodes are further nodes of the broker's cluster, each as host:port. When the
	// URL's host can't be reached, they are tried in turn, and the one that answered
	// last is the first to be tried again. Default: none.
	Nodes []string
	// Name is shown in the broker's list of connections. Default: none.
	Name string
	// PublishConnections is how many connections publish. The second is used when
	// a transport has half of its Window unconfirmed on the first, and so on. Default
	// 1, at most 16.
	PublishConnections int

	// DialTimeout bounds one try to connect to a node, with TLS and login, and later
	// one answer of the broker's. Default 10 s.
	DialTimeout time.Duration
	// WriteTimeout is after how long a connection is given up whose peer reads
	// nothing. Default 10 s.
	WriteTimeout time.Duration
	// Heartbeat is how often each side tells the other that it is alive. A
	// connection is given up after a silence of one and a half times as long. Whole
	// seconds, 1 to 65535; one in the URL takes precedence. Default 10 s.
	Heartbeat time.Duration
	// MaxReconnectDelay bounds the wait between two tries to reconnect. It doubles
	// from 100 ms on, and is jittered. Default 30 s.
	MaxReconnectDelay time.Duration

	// TLS is used with an amqps:// URL. It is cloned, and an empty ServerName
	// becomes the host of the node. Nil means the system's certificates, or the files
	// that the URL names.
	TLS *tls.Config
	// Logger logs when connections are made, lost and blocked. Nil discards
	// everything.
	Logger *slog.Logger
}

func (c ConnectionsConfig) withDefaults() ConnectionsConfig {
	defaultTo(&c.PublishConnections, 1)
	defaultTo(&c.DialTimeout, 10*time.Second)
	defaultTo(&c.WriteTimeout, 10*time.Second)
	defaultTo(&c.Heartbeat, 10*time.Second)
	defaultTo(&c.MaxReconnectDelay, 30*time.Second)
	c.Logger = quietLogger(c.Logger, c.MaxReconnectDelay)
	return c
}

// validate reports every fault of a config that has its defaults.
func (c ConnectionsConfig) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	uri, err := parseURL(c.URL)
	switch {
	case c.URL == "":
		fault("URL is empty, want amqp://user:password@host:port/vhost")
	case err != nil:
		faults = append(faults, err)
	case c.TLS != nil && uri.Scheme != "amqps":
		fault("TLS is set, but URL begins with %s://, want amqps://", uri.Scheme)
	}
	for i, node := range c.Nodes {
		host, port, addressErr := net.SplitHostPort(node)
		if number, portErr := strconv.ParseUint(port, 10, 16); addressErr != nil || portErr != nil || host == "" || number == 0 {
			fault("Nodes[%d] is %q, want host:port", i, node)
		}
	}
	if c.PublishConnections < 1 || c.PublishConnections > maxPublishConnections {
		fault("PublishConnections is %d, want 1 to %d", c.PublishConnections, maxPublishConnections)
	}
	positive := func(field string, value time.Duration) {
		if value <= 0 {
			fault("%s is %s, want more than 0", field, value)
		}
	}
	positive("DialTimeout", c.DialTimeout)
	positive("WriteTimeout", c.WriteTimeout)
	positive("MaxReconnectDelay", c.MaxReconnectDelay)
	if c.Heartbeat < time.Second || c.Heartbeat > maxHeartbeat || c.Heartbeat%time.Second != 0 {
		fault("Heartbeat is %s, want whole seconds, 1s to %s", c.Heartbeat, maxHeartbeat)
	}
	return errors.Join(faults...)
}

// Connections are a process's connections to a broker, for any number of transports
// (Config.Connections): some that publish, one that consumes, and one that declares
// and asks. Each is made when a transport first needs it, and closed when the last one
// that uses it is closed, so Connections need no Close. They are safe for concurrent
// use.
//
// Each transport has channels of its own. What one of them forbids, deletes or breaks
// ends its channels. A queue that does not answer has its transport move to another
// connection, and so has a connection that is blocked while a channel is to be opened
// there, or that has as many as the broker allows (channel_max, 2047 by default). What
// they share is what the broker does to a whole connection: it may end it, and it stops
// reading from it while a queue can't keep up with what is published. A transport whose
// queues are to disturb no others should have connections of its own.
type Connections struct {
	config  ConnectionsConfig
	dialer  *dialer
	publish []*sharedConn
	consume *sharedConn
	control *sharedConn // neither publishes, which the broker may block, nor consumes
}

// NewConnections returns Connections, which connect when a transport is opened. The
// error is ErrConfig and names every field at fault.
func NewConnections(config ConnectionsConfig) (*Connections, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	return newConnections(config), nil
}

// newConnections takes a config that is valid.
func newConnections(config ConnectionsConfig) *Connections {
	d := newDialer(config)
	c := &Connections{
		config:  config,
		dialer:  d,
		consume: &sharedConn{dialer: d, purpose: "consume"},
		control: &sharedConn{dialer: d, purpose: "control"},
	}
	for i := range config.PublishConnections {
		c.publish = append(c.publish, &sharedConn{dialer: d, purpose: "publish", number: i})
	}
	return c
}
