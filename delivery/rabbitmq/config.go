package rabbitmq

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/esh3artech/barid/delivery"
)

// MaxBodyBytes bounds Config.MaxBodyBytes. A broker before 4.0 takes as much by
// default (its setting max_message_size), one from 4.0 on 16 MiB.
const MaxBodyBytes = 128 << 20

// The other bounds of a Config.
const (
	// maxNameBytes leaves room for what is added to the name, within AMQP's 255
	// bytes for a queue's name.
	maxNameBytes = 200
	// maxWindow is for the client's sake: a confirm of several messages makes it
	// look through its whole window.
	maxWindow = 16384
)

// Config configures a Transport. URL and Name are required, the rest has defaults.
type Config struct {
	// URL of the broker: amqp://user:password@host:port/vhost, or amqps:// for
	// TLS. Reserved characters of user, password and vhost are percent-encoded
	// (RabbitMQ: "RabbitMQ URI Specification"). Required without Connections.
	URL string
	// Name is the prefix of every queue and exchange. Processes with the same
	// Name share the work. At most 200 bytes, without control characters. Required.
	Name string
	// Topology returns the exchanges, queues and bindings to use, for a broker of
	// the given version: Quorum, which is the default, or Classic. A function of
	// the host's may change what these return, for instance a queue's arguments.
	Topology func(name string, server Version) Topology
	// Shards is how many queues each priority's queue is split into, by recipient,
	// see Topology.Sharded. One process at a time fetches from each, so that with
	// ordered consumers each recipient's order holds over any number of processes.
	// All processes should have the same number; before you change it, read
	// "Shards" in the package comment. Default 1, which splits nothing; at most 64.
	Shards int
	// Passive is for hosts that manage the topology elsewhere: it is only checked
	// that the exchanges and queues exist. What the user may not look at counts as
	// there (from RabbitMQ 4.3 on that takes a permission). Default false: what is
	// missing is declared. Nothing is ever deleted or changed.
	Passive bool

	// Window is how many messages may be unconfirmed on each connection that
	// publishes. Default 512, at most 16384.
	Window int
	// MaxBodyBytes bounds a message's body. A larger one is not sent, and is
	// malformed when received. Default 16 MiB, at most 128 MiB.
	MaxBodyBytes int

	// Connections are those of other transports as well. URL and the fields from Nodes
	// to TLS are theirs, and left out here. Nil means connections of the transport's
	// own: three, if PublishConnections is 1.
	Connections *Connections
	// For connections of its own, see ConnectionsConfig.
	Nodes              []string
	PublishConnections int
	DialTimeout        time.Duration
	WriteTimeout       time.Duration
	Heartbeat          time.Duration
	MaxReconnectDelay  time.Duration
	TLS                *tls.Config

	// Logger logs the events that the package comment lists. Those that are errors
	// remain until somebody changes something: one with the same cause is logged once,
	// and then after 10 s, 20 s and so on, up to an hour. Nil discards everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Topology == nil {
		c.Topology = Quorum
	}
	defaultTo(&c.Shards, 1)
	defaultTo(&c.Window, 512)
	defaultTo(&c.MaxBodyBytes, delivery.DefaultMaxBody)
	return c
}

// connections returns those that the transport is to use.
func (c Config) connections() (*Connections, error) {
	if c.Connections == nil {
		return NewConnections(ConnectionsConfig{
			URL: c.URL, Nodes: c.Nodes, Name: c.Name, PublishConnections: c.PublishConnections,
			DialTimeout: c.DialTimeout, WriteTimeout: c.WriteTimeout, Heartbeat: c.Heartbeat,
			MaxReconnectDelay: c.MaxReconnectDelay, TLS: c.TLS, Logger: c.Logger,
		})
	}
	if c.Connections.dialer == nil {
		return nil, fmt.Errorf("%w: Connections were not made by NewConnections", ErrConfig)
	}
	var faults []error
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"URL", c.URL != ""}, {"Nodes", c.Nodes != nil}, {"PublishConnections", c.PublishConnections != 0},
		{"DialTimeout", c.DialTimeout != 0}, {"WriteTimeout", c.WriteTimeout != 0}, {"Heartbeat", c.Heartbeat != 0},
		{"MaxReconnectDelay", c.MaxReconnectDelay != 0}, {"TLS", c.TLS != nil},
	} {
		if field.set {
			faults = append(faults, fmt.Errorf("%w: %s is set, and so is Connections, whose own counts", ErrConfig, field.name))
		}
	}
	return c.Connections, errors.Join(faults...)
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate reports every fault of a config that has its defaults.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	switch {
	case c.Name == "":
		fault("Name is empty, want a prefix for the queues")
	case len(c.Name) > maxNameBytes:
		fault("Name has %d bytes, want at most %d", len(c.Name), maxNameBytes)
	case !utf8.ValidString(c.Name):
		fault("Name is %q, want UTF-8", c.Name)
	case strings.ContainsFunc(c.Name, unicode.IsControl):
		fault("Name is %q, want no control characters such as a line break", c.Name)
	case strings.HasPrefix(c.Name, "amq."):
		fault("Name is %q, want no name that begins with amq., which the broker reserves", c.Name)
	}
	atMost := func(field string, value, most int) {
		if value < 1 || value > most {
			fault("%s is %d, want 1 to %d", field, value, most)
		}
	}
	atMost("Shards", c.Shards, maxShards)
	atMost("Window", c.Window, maxWindow)
	atMost("MaxBodyBytes", c.MaxBodyBytes, MaxBodyBytes)
	return errors.Join(faults...)
}
