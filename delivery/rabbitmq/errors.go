package rabbitmq

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ErrConfig says that a Config or CollectorConfig can't be used. Its text names
// every field at fault.
var ErrConfig = errors.New("rabbitmq: invalid config")

// ConnectError says that the broker could not be reached, or refused the login.
// Unwrap returns the cause, and the context's error if that ended the tries.
type ConnectError struct {
	// Address is the broker's host:port.
	Address string
	// Permanent says that trying again is of no use until somebody changes the
	// configuration: a wrong password, a missing virtual host, TLS.
	Permanent bool
	// Cause is the last try's error.
	Cause error
	// Context is the error of the context that ended the tries, or nil.
	Context error
}

func (e *ConnectError) Error() string {
	if e.Context != nil {
		return fmt.Sprintf("rabbitmq: no connection to %s: %v, the last cause: %v", e.Address, e.Context, e.Cause)
	}
	return fmt.Sprintf("rabbitmq: no connection to %s: %v", e.Address, e.Cause)
}

// Unwrap returns the cause and the context's error.
func (e *ConnectError) Unwrap() []error {
	if e.Context != nil {
		return []error{e.Cause, e.Context}
	}
	return []error{e.Cause}
}

// TopologyError says which part of the Topology differs from what exists in the
// broker, is missing there, or can't be declared.
type TopologyError struct {
	// Kind is "exchange", "queue" or "binding".
	Kind string
	// Name is that of the exchange or queue; of a binding, its destination's.
	Name string
	// Argument is the one that differs from what exists, or that the broker
	// refuses. It is empty when something else is wrong.
	Argument string
	// Cause is the broker's reply.
	Cause error
}

func (e *TopologyError) Error() string {
	switch {
	case e.Argument != "" && strings.Contains(e.Cause.Error(), "inequivalent"):
		return fmt.Sprintf("rabbitmq: %s %q exists with another %s: %v", e.Kind, e.Name, e.Argument, e.Cause)
	case e.Argument != "":
		return fmt.Sprintf("rabbitmq: %s %q can't have %s: %v", e.Kind, e.Name, e.Argument, e.Cause)
	}
	return fmt.Sprintf("rabbitmq: %s %q: %v", e.Kind, e.Name, e.Cause)
}

// Unwrap returns the broker's reply.
func (e *TopologyError) Unwrap() error { return e.Cause }

// newTopologyError reads from the broker's reply which argument is at fault:
// "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received ...".
func newTopologyError(kind, name string, cause error) *TopologyError {
	fault := &TopologyError{Kind: kind, Name: name, Cause: cause}
	if _, rest, found := strings.Cut(cause.Error(), " arg '"); found {
		fault.Argument, _, _ = strings.Cut(rest, "'")
	}
	return fault
}

// topologyFault is a *TopologyError if err is the broker's reply to a request about
// a part of the topology. Any other error, as that of a lost connection, is returned
// as it is.
func topologyFault(kind, name string, err error) error {
	var reply *amqp.Error
	if !errors.As(err, &reply) || !reply.Server {
		return err
	}
	return newTopologyError(kind, name, err)
}

// permanent says whether an error of connecting or declaring remains until
// somebody changes something. An error of the client's own, not of the broker's,
// says only that the socket was closed, whatever its code.
func permanent(err error) bool {
	var reply *amqp.Error
	if errors.As(err, &reply) {
		if errors.Is(err, amqp.ErrSASL) || errors.Is(err, amqp.ErrChannelMax) {
			return true
		}
		if !reply.Server {
			return false
		}
		switch reply.Code {
		case amqp.AccessRefused, amqp.NotFound, amqp.PreconditionFailed, amqp.NotImplemented:
			return true
		case amqp.NotAllowed:
			// A virtual host that is missing or forbidden has the same code as one that
			// is down for now, or has too many connections.
			return strings.Contains(reply.Reason, "not found") || strings.Contains(reply.Reason, "refused")
		}
		return false
	}
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		invalid     x509.CertificateInvalidError
		record      tls.RecordHeaderError
		operation   *net.OpError
	)
	switch {
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &hostname),
		errors.As(err, &invalid), errors.As(err, &record):
		return true
	case errors.As(err, &operation):
		return operation.Op == "remote error" // crypto/tls: the peer sent an alert
	}
	return false
}

// isCode says whether err is the broker's own reply with the code.
func isCode(err error, code int) bool {
	var reply *amqp.Error
	return errors.As(err, &reply) && reply.Server && reply.Code == code
}
