package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	amqp "github.com/rabbitmq/amqp091-go"
)

// closeTimeout bounds a polite end of a connection.
const closeTimeout = 5 * time.Second

// Version is a broker's version. The zero value is an unknown one and is
// treated as the oldest.
type Version struct{ Major, Minor, Patch int }

// AtLeast says whether v is the given version or a later one.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// parseVersion reads a version such as "3.10.8" or "4.1.0-rc.1", as far as it
// can be read.
func parseVersion(text string) Version {
	var numbers [3]int
	text, _, _ = strings.Cut(text, "-")
	for i, part := range strings.SplitN(text, ".", 3) {
		number, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		numbers[i] = number
	}
	return Version{Major: numbers[0], Minor: numbers[1], Patch: numbers[2]}
}

// dialer makes connections to one broker.
type dialer struct {
	config  Config
	uri     amqp.URI
	address string
}

// link is one connection, from its login to its end. It is never mended: what
// comes after it is a new link.
type link struct {
	conn    *amqp.Connection
	wire    *wire
	version Version
	gone    chan struct{} // closed when the connection is no more
	cause   error         // why; to be read after gone
}

// dial connects once, within DialTimeout and ctx. purpose is shown in the
// broker's list of connections.
func (d *dialer) dial(ctx context.Context, purpose string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.DialTimeout)
	defer cancel()
	var dialed atomic.Pointer[wire]
	kill := func() {
		if w := dialed.Load(); w != nil {
			w.kill()
		}
	}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("barid " + d.config.Name + " " + purpose)
	settings := amqp.Config{
		SASL:       d.logins(properties),
		Heartbeat:  d.config.Heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			w := newWire(conn, d.config.WriteTimeout)
			dialed.Store(w)
			if err := ctx.Err(); err != nil {
				return nil, err // too late for the AfterFunc below
			}
			return w, nil
		},
	}
	if d.config.TLS != nil {
		settings.TLSClientConfig = d.config.TLS.Clone()
	}
	stop := context.AfterFunc(ctx, kill)
	conn, err := amqp.DialConfig(d.config.URL, settings)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		kill()
		if deadline, _ := ctx.Deadline(); !time.Now().Before(deadline) {
			<-ctx.Done() // the dialer's own timer may have been the first
		}
		if ctx.Err() != nil && !permanent(err) {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return nil, err
	}
	l := &link{conn: conn, wire: dialed.Load(), gone: make(chan struct{})}
	version, _ := conn.Properties["version"].(string)
	l.version = parseVersion(version)
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		l.cause = causeOf(<-closed)
		close(l.gone)
	}()
	return l, nil
}

// login is an Authentication that makes the broker answer a wrong password
// instead of closing the socket without a word, which looks like a broker that
// went down. ("Authentication Failures", RabbitMQ: Compatibility and
// Conformance.) The client sets the capabilities itself, just before it asks
// for the response.
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

// connect dials until it succeeds, ctx ends, or the cause is permanent and
// patient is false. A patient one tries a permanent cause again at the slowest
// pace.
func (d *dialer) connect(ctx context.Context, purpose string, pause *pause, patient bool) (*link, error) {
	for {
		l, err := d.dial(ctx, purpose)
		if err == nil {
			return l, nil
		}
		fault := &ConnectError{Address: d.address, Permanent: permanent(err), Cause: err}
		if fault.Permanent && !patient {
			return nil, fault
		}
		if ctx.Err() == nil {
			delay := pause.next(fault.Permanent)
			level := slog.LevelWarn
			if fault.Permanent {
				level = slog.LevelError
			}
			d.config.Logger.Log(ctx, level, "rabbitmq_connect_failed", "purpose", purpose,
				"address", d.address, "permanent", fault.Permanent, "retry_in", delay, "error", err)
			wait(ctx.Done(), delay)
		}
		if ctx.Err() != nil {
			fault.Context = ctx.Err()
			return nil, fault
		}
	}
}

// within runs f, which talks to the broker over l, and ends the connection when
// that takes longer than timeout or ctx: the client's calls know no deadline.
func (l *link) within(ctx context.Context, timeout time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, l.wire.kill)
	err := f()
	switch {
	case stop():
		return err
	case err == nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

// close ends the connection, politely if that can be done in time, and returns
// when it is gone.
func (l *link) close() {
	timer := time.AfterFunc(closeTimeout, l.wire.kill)
	l.conn.CloseDeadline(time.Now().Add(closeTimeout)) //nolint:errcheck // gone is what is wanted
	timer.Stop()
	<-l.gone
	l.wire.kill()
	<-l.wire.ended
}

// pause is the growing, jittered delay between tries.
type pause struct {
	exponential *backoff.ExponentialBackOff
	longest     time.Duration
}

// steady is for how long a connection has to live until the next one is made
// without delay.
const steady = 5 * time.Second

func newPause(longest time.Duration) *pause {
	const jitter = 0.5
	return &pause{longest: longest, exponential: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(100*time.Millisecond, longest)),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(jitter),
		// The limit counts before the jitter, which adds up to one half.
		backoff.WithMaxInterval(time.Duration(float64(longest)/(1+jitter))),
		backoff.WithMaxElapsedTime(0),
	)}
}

func (p *pause) next(permanent bool) time.Duration {
	if permanent {
		return p.longest
	}
	return p.exponential.NextBackOff()
}

// lived starts again from the shortest delay after something that held.
func (p *pause) lived(since time.Time) {
	if time.Since(since) >= steady {
		p.exponential.Reset()
	}
}

// wait returns after delay, or earlier when one of the channels is closed.
func wait(done <-chan struct{}, delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
