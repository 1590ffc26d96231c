package servers

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
)

// Ports are chosen below the range that systems give to outgoing connections
// (32768 and up on Linux, 49152 and up by RFC 6335). A connection could take a
// port of that range while its server is down.
const (
	lowestPort  = 10000
	highestPort = 32000
	portTries   = 1000
)

// freePorts finds n ports of 127.0.0.1 on which nobody listens now. Another
// process may be faster than the server, so whoever starts a server on a port
// must be ready to try another one.
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

// portTaken tells from a server's log that it ended because another process
// listened on its port.
func portTaken(log string) bool {
	log = strings.ToLower(log)
	for _, sign := range []string{"eaddrinuse", "address already in use", "in use by another node", "address in use"} {
		if strings.Contains(log, sign) {
			return true
		}
	}
	return false
}
