package faults

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Addresses are from 198.18.0.0/15, which is for tests (RFC 2544).
const (
	clientNet  = "198.18.77"
	clusterNet = "198.18.78"
)

// needNamespaces returns why there can be no network namespaces, or "".
func needNamespaces() string {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	name := fmt.Sprintf("barid-try-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		return "ip netns: " + strings.TrimSpace(err.Error()+" "+string(out))
	}
	defer exec.Command("ip", "netns", "del", name).Run() //nolint:errcheck // ends at once
	bridge := fmt.Sprintf("baridt%d", os.Getpid()%10_000)
	if out, err := exec.Command("ip", "link", "add", bridge, "type", "bridge").CombinedOutput(); err != nil {
		return "ip link: " + strings.TrimSpace(err.Error()+" "+string(out))
	}
	exec.Command("ip", "link", "del", bridge).Run() //nolint:errcheck // ends at once
	return ""
}

// ip runs the command of that name.
func (r *rowTest) ip(args ...string) {
	r.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(r, err, "ip %s: %s", args, bytes.TrimSpace(out))
}

func (r *rowTest) ipLater(args ...string) {
	r.atEnd(func() {
		out, err := exec.Command("ip", args...).CombinedOutput()
		assert.NoError(r, err, "ip %s: %s", args, bytes.TrimSpace(out))
	})
}

// bridge makes a bridge between links. With an address, the test itself is on it as
// well.
func (r *rowTest) bridge(kind, address string) string {
	r.Helper()
	name := fmt.Sprintf("barid%s%d", kind, os.Getpid()%10_000)
	r.ip("link", "add", name, "type", "bridge")
	r.ipLater("link", "del", name)
	if address != "" {
		r.ip("addr", "add", address+"/24", "dev", name)
	}
	r.ip("link", "set", name, "up")
	return name
}

// namespace makes a network namespace that has a loopback.
func (r *rowTest) namespace(kind string) string {
	r.Helper()
	name := fmt.Sprintf("barid-%s-%d", kind, os.Getpid())
	r.ip("netns", "add", name)
	r.ipLater("netns", "del", name)
	r.ip("-n", name, "link", "set", "lo", "up")
	return name
}

// vethLink is a namespace's link to a bridge.
type vethLink struct {
	r               *rowTest
	hostEnd, bridge string
}

// connect gives the namespace an address on the bridge. link is its name in the
// namespace.
func (r *rowTest) connect(namespace, link, bridge, address string) *vethLink {
	r.Helper()
	c := &vethLink{r: r, hostEnd: fmt.Sprintf("bf%s%d", address[strings.LastIndexByte(address, '.')+1:]+link, os.Getpid()%10_000), bridge: bridge}
	r.ip("link", "add", c.hostEnd, "type", "veth", "peer", "name", link, "netns", namespace)
	r.ip("-n", namespace, "addr", "add", address+"/24", "dev", link)
	r.ip("-n", namespace, "link", "set", link, "up")
	r.ip("link", "set", c.hostEnd, "up")
	c.attach()
	return c
}

func (c *vethLink) attach() { c.r.ip("link", "set", c.hostEnd, "master", c.bridge) }

// detach cuts the link in silence: both ends stay up, and nothing arrives.
func (c *vethLink) detach() { c.r.ip("link", "set", c.hostEnd, "nomaster") }

// listenIn listens inside of a namespace. A socket stays where it was made.
func (r *rowTest) listenIn(namespace, address string) net.Listener {
	r.Helper()
	type made struct {
		listener net.Listener
		err      error
	}
	done := make(chan made)
	go func() {
		// The thread ends with the goroutine, because it is never unlocked: nobody
		// else must run in that namespace.
		runtime.LockOSThread()
		var m made
		file, err := os.Open("/run/netns/" + namespace)
		if m.err = err; err == nil {
			m.err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close() //nolint:errcheck // read only
		}
		if m.err == nil {
			m.listener, m.err = net.Listen("tcp", address)
		}
		done <- m
	}()
	m := <-done
	require.NoError(r, m.err)
	return m.listener
}
