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
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// The bounds of a Config.
const (
	// MaxNameBytes leaves room for what is added to the name within AMQP's 255
	// bytes for a queue's name.
	MaxNameBytes = 200
	// MaxLanes bounds Config.Lanes.
	MaxLanes = 16
	// MaxWindow bounds Config.Window: every confirm that covers several messages
	// makes the client look at its whole window.
	MaxWindow = 16384
	// MaxBodyBytes is what RabbitMQ takes by default at most (its setting
	// max_message_size: 128 MiB until 3.13, and by its documentation 16 MiB from
	// 4.0 on).
	MaxBodyBytes = 128 << 20
)

// Config says how to reach a broker and what to keep there. URL and Name are
// required; the rest has defaults.
type Config struct {
	// URL of the broker: amqp://user:password@host:port/vhost, or amqps:// for
	// TLS. Reserved characters of user, password and vhost are percent-encoded.
	// See "RabbitMQ URI Specification". Required.
	URL string
	// Name is the prefix of every queue and exchange. Processes with the same
	// Name share the work. At most 200 bytes. Required.
	Name string
	// Topology makes the exchanges and queues that are used, for a broker of the
	// given version: Quorum, which is the default, or Classic. A function of your
	// own may change what these return, for instance a queue's arguments.
	Topology func(name string, server Version) Topology
	// Shards splits the queue of each level into so many, by recipient, each
	// fetched by one process at a time: see Topology.Sharded. With ordered
	// consumers it keeps each recipient's order over any number of processes.
	// Default 1, no split; at most 64. All processes should have the same; to
	// change it, read "Shards" in the package comment.
	Shards int
	// Passive only checks that the exchanges and queues of the Topology exist,
	// for hosts that manage them elsewhere. Default false: what is missing is
	// declared. Nothing is ever deleted or changed.
	Passive bool

	// Lanes is how many connections publish, each with a channel. The second is
	// used when the first has half of its Window in flight, and so on. Default 2,
	// at most 16.
	Lanes int
	// Window is how many messages a lane may have sent that the broker has not
	// confirmed yet. Default 512, at most 16384.
	Window int
	// MaxBodyBytes bounds a message's body, both ways: a larger one is not sent,
	// and is malformed when received. Default 16 MiB, at most 128 MiB.
	MaxBodyBytes int

	// DialTimeout bounds one try to connect, with TLS and login. Default 10 s.
	DialTimeout time.Duration
	// WriteTimeout is after how long a connection that takes no more bytes is
	// given up. Default 10 s.
	WriteTimeout time.Duration
	// Heartbeat is how often each side tells the other that it is alive; a
	// connection silent for one and a half of it is given up. Whole seconds, at
	// least 1 s. Default 10 s. A heartbeat in the URL goes first.
	Heartbeat time.Duration
	// MaxReconnectDelay bounds the pause between two tries to reconnect, which
	// grows from some 100 ms and is jittered. Default 30 s.
	MaxReconnectDelay time.Duration

	// TLS is used for an amqps:// URL. It is cloned; an empty ServerName becomes
	// the URL's host. Nil means the system's certificates, or the files that the
	// URL names.
	TLS *tls.Config
	// Logger is told when a connection comes and goes. Nil discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Topology == nil {
		c.Topology = Quorum
	}
	defaultTo(&c.Shards, 1)
	defaultTo(&c.Lanes, 2)
	defaultTo(&c.Window, 512)
	defaultTo(&c.MaxBodyBytes, delivery.DefaultMaxBody)
	defaultTo(&c.DialTimeout, 10*time.Second)
	defaultTo(&c.WriteTimeout, 10*time.Second)
	defaultTo(&c.Heartbeat, 10*time.Second)
	defaultTo(&c.MaxReconnectDelay, 30*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
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
	case len(c.Name) > MaxNameBytes:
		fault("Name has %d bytes, want at most %d", len(c.Name), MaxNameBytes)
	case !utf8.ValidString(c.Name):
		fault("Name is %q, want UTF-8", c.Name)
	case strings.HasPrefix(c.Name, "amq."):
		fault("Name is %q, want no name that begins with amq., which the broker reserves", c.Name)
	}
	atMost := func(field string, value, most int) {
		if value < 1 || value > most {
			fault("%s is %d, want 1 to %d", field, value, most)
		}
	}
	atMost("Shards", c.Shards, MaxShards)
	atMost("Lanes", c.Lanes, MaxLanes)
	atMost("Window", c.Window, MaxWindow)
	atMost("MaxBodyBytes", c.MaxBodyBytes, MaxBodyBytes)
	positive := func(field string, value time.Duration) {
		if value <= 0 {
			fault("%s is %s, want more than 0", field, value)
		}
	}
	positive("DialTimeout", c.DialTimeout)
	positive("WriteTimeout", c.WriteTimeout)
	positive("MaxReconnectDelay", c.MaxReconnectDelay)
	if c.Heartbeat < time.Second {
		fault("Heartbeat is %s, want at least 1s", c.Heartbeat)
	}
	return errors.Join(faults...)
}

// parseURL reads an AMQP URL. Its error quotes nothing of the URL: when the
// password is not percent-encoded, any part of the URL may be a part of it.
func parseURL(url string) (amqp.URI, error) {
	fault := func(problem string) (amqp.URI, error) {
		return amqp.URI{}, fmt.Errorf("%w: URL %s, want amqp://user:password@host:port/vhost, "+
			"with reserved characters of user and password percent-encoded", ErrConfig, problem)
	}
	uri, err := amqp.ParseURI(url)
	if err != nil {
		return fault("can't be parsed")
	}
	// An @ behind the host is the end of a password with a bare / ? or #: the
	// part before it was taken for a host.
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
