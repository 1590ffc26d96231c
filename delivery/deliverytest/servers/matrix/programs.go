package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// programs writes, for a release that is mounted at root, scripts that run its
// servers, and returns the environment that has package servers use them. A script
// turns into the server, so that the server has its process ID and its signals.
func programs(root, folder string) ([]string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	asRoot := fmt.Sprintf(`chroot "%s"`, root)
	// PostgreSQL runs as another user, who needs a user namespace to change the root.
	asUser := fmt.Sprintf(`unshare --map-current-user --root="%s" --wd="$PWD"`, root)
	postgres, err := filepath.Glob(filepath.Join(root, "usr/lib/postgresql/*/bin"))
	if err != nil || len(postgres) == 0 {
		return nil, fmt.Errorf("no PostgreSQL in %s: %w", root, err)
	}
	inside, err := filepath.Rel(root, postgres[0])
	if err != nil {
		return nil, err
	}
	for name, command := range map[string]string{
		"rabbitmq-server": asRoot + " /usr/lib/rabbitmq/bin/rabbitmq-server",
		"rabbitmqctl":     asRoot + " /usr/lib/rabbitmq/bin/rabbitmqctl",
		"redis-server":    asRoot + " /usr/bin/redis-server",
		"valkey-server":   asRoot + " /usr/bin/valkey-server",
		"postgres":        asUser + " /" + inside + "/postgres",
		"initdb":          asUser + " /" + inside + "/initdb",
	} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", command)
		if err := os.WriteFile(filepath.Join(folder, name), []byte(script), 0o755); err != nil { //nolint:gosec // a program
			return nil, err
		}
	}
	return []string{
		servers.EnvRabbitMQServer + "=" + filepath.Join(folder, "rabbitmq-server"),
		servers.EnvRedisServer + "=" + filepath.Join(folder, "redis-server"),
		servers.EnvPostgresServer + "=" + filepath.Join(folder, "postgres"),
	}, nil
}
