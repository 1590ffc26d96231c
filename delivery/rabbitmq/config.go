package rabbitmq

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// MaxBodyBytes bounds Config.MaxBodyBytes. A broker before 4.0 takes as much by
// default (its setting max_message_size), one from 4.0 on 16 MiB.
const MaxBodyBytes = 128 << 20

// The other bounds of a Config.
const (
	// maxNameBytes leaves room for what is added to the name, within AMQP's 255
	// bytes for a queue's name.
	maxNameBytes          = 200
	maxPublishConnections = 16
	// maxWindow is for the client's sake: a confirm of several messages makes it
	// look through its whole window.
	maxWindow    = 16384
	maxHeartbeat = 65535 * time.Second // 16 bits
)

// Config configures a Transport. URL and Name are required, the rest has defaults.
type Config struct {
	// URL of the broker: amqp://user:password@host:port/vhost, or amqps:// for
	// TLS. Reserved characters of user, password and vhost are percent-encoded
	// (RabbitMQ: "RabbitMQ URI Specification"). Required.
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

	// PublishConnections is how many connections publish. The second is used when
	// the first has half of its Window unconfirmed, and so on. Default 2, at most
	// 16.
	PublishConnections int
	// Window is how many messages may be unconfirmed on each of these connections.
	// Default 512, at most 16384.
	Window int
	// MaxBodyBytes bounds a message's body. A larger one is not sent, and is
	// malformed when received. Default 16 MiB, at most 128 MiB.
	MaxBodyBytes int

	// DialTimeout bounds one try to connect, with TLS and login. Default 10 s.
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
	// becomes the URL's host. Nil means the system's certificates, or the files
	// that the URL names.
	TLS *tls.Config
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
	defaultTo(&c.PublishConnections, 2)
	defaultTo(&c.Window, 512)
	defaultTo(&c.MaxBodyBytes, delivery.DefaultMaxBody)
	defaultTo(&c.DialTimeout, 10*time.Second)
	defaultTo(&c.WriteTimeout, 10*time.Second)
	defaultTo(&c.Heartbeat, 10*time.Second)
	defaultTo(&c.MaxReconnectDelay, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = newQuietLogger(c.Logger, c.MaxReconnectDelay)
	return c
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
	uri, err := parseURL(c.URL)
	switch {
	case c.URL == "":
		fault("URL is empty, want amqp://user:password@host:port/vhost")
	case err != nil:
		faults = append(faults, err)
	case c.TLS != nil && uri.Scheme != "amqps":
		fault("TLS is set, but URL begins with %s://, want amqps://", uri.Scheme)
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
	atMost("PublishConnections", c.PublishConnections, maxPublishConnections)
	atMost("Window", c.Window, maxWindow)
	atMost("MaxBodyBytes", c.MaxBodyBytes, MaxBodyBytes)
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

// parseURL reads an AMQP URL. Its error quotes nothing of the URL: if the password
// is not percent-encoded, any part of the URL may belong to it.
func parseURL(url string) (amqp.URI, error) {
	fault := func(problem string) (amqp.URI, error) {
		return amqp.URI{}, fmt.Errorf("%w: URL %s, want amqp://user:password@host:port/vhost, "+
			"with reserved characters of user, password and vhost percent-encoded, an @ as %%40", ErrConfig, problem)
	}
	uri, err := amqp.ParseURI(url)
	if err != nil {
		return fault("can't be parsed")
	}
	// An @ behind the host ends a password with a bare / ? or #, and then the part
	// before that was taken for the host. Or it belongs to the vhost.
	_, rest, _ := strings.Cut(url, "://")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 && strings.Contains(rest[end:], "@") {
		return fault("has an @ behind the host")
	}
	for _, mechanism := range uri.AuthMechanism {
		switch strings.ToUpper(mechanism) {
		case "PLAIN", "AMQPLAIN", "EXTERNAL":
		default:
			return fault("has an unknown auth_mechanism")
		}
	}
	return uri, nil
}

// address is host:port, the only part of a URL that is ever shown.
func address(uri amqp.URI) string {
	return net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
}
