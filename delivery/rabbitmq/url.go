package rabbitmq

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

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
	if strings.Contains(uri.Host, ",") {
		return fault("has several hosts: one belongs into it, the others into Nodes")
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

// withAddress is a URL that is valid, with another host:port.
func withAddress(url, address string) string {
	scheme, rest, _ := strings.Cut(url, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	login := strings.LastIndex(rest[:end], "@") + 1
	return scheme + "://" + rest[:login] + address + rest[end:]
}
