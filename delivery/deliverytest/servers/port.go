package servers

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
)

// Ports are taken from below the range that systems give to outgoing
// connections (32768 and up on Linux, 49152 and up by RFC 6335): a port of that
// range could be lost to some connection while its server is down.
const (
	lowestPort  = 10000
	highestPort = 32000
	portTries   = 1000
)

// freePorts finds n ports of 127.0.0.1 that nobody listens on now. Somebody may
// be quicker before the server does: whoever starts a server on one has to be
// ready to try another.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	var last error
	for range portTries {
		if len(ports) == n {
			return ports, nil
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		listener, err := net.Listen("tcp", loopback(port)) //nolint:noctx // returns at once
		if err != nil {
			last = err
			continue
		}
		// Held until all are found, so that they differ.
		defer listener.Close() //nolint:errcheck // nothing was accepted
		ports = append(ports, port)
	}
	return nil, errors.Join(errors.New("servers: no free port"), last)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// portTaken tells from a server's log that it ended because somebody else was
// quicker to listen.
func portTaken(log string) bool {
	log = strings.ToLower(log)
	for _, sign := range []string{"eaddrinuse", "address already in use", "in use by another node", "address in use"} {
		if strings.Contains(log, sign) {
			return true
		}
	}
	return false
}
