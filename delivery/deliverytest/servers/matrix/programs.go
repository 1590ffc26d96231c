package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// program is a server's program in the root of a release.
type program struct {
	name     string
	pattern  string // of its path in the root
	variable string // has package servers use it; empty where another one of the folder does
	asUser   bool   // it is run by another user than root
}

var allPrograms = []program{
	{"rabbitmq-server", "usr/lib/rabbitmq/bin/rabbitmq-server", servers.EnvRabbitMQServer, false},
	{"rabbitmqctl", "usr/lib/rabbitmq/bin/rabbitmqctl", "", false},
	{"redis-server", "usr/bin/redis-server", servers.EnvRedisServer, false},
	{"valkey-server", "usr/bin/valkey-server", "", false},
	{"postgres", "usr/lib/postgresql/*/bin/postgres", servers.EnvPostgresServer, true},
	{"initdb", "usr/lib/postgresql/*/bin/initdb", "", true},
}

// programs writes, for a release that is mounted at root, scripts that run its
// servers, and returns the environment that has package servers use them. A server
// that the release lacks is the machine's own.
func programs(root, folder string) ([]string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	var env []string
	for _, p := range allPrograms {
		found, err := filepath.Glob(filepath.Join(root, p.pattern))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			continue
		}
		inside, err := filepath.Rel(root, found[0])
		if err != nil {
			return nil, err
		}
		path := filepath.Join(folder, p.name)
		if err := os.WriteFile(path, []byte(p.script(root, inside)), 0o755); err != nil { //nolint:gosec // a program
			return nil, err
		}
		if p.variable != "" {
			env = append(env, p.variable+"="+path)
		}
	}
	return env, nil
}

// script turns into the server, so that the server has its process ID and its
// signals. Who is not root needs a user namespace to change the root.
func (p program) script(root, inside string) string {
	change := fmt.Sprintf(`chroot "%s"`, root)
	if p.asUser {
		change = fmt.Sprintf(`unshare --map-current-user --root="%s" --wd="$PWD"`, root)
	}
	return fmt.Sprintf("#!/bin/sh\nexec %s /%s \"$@\"\n", change, inside)
}
