package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Environment variables that override what the package finds by itself.
const (
	// EnvAMQPURL names a running RabbitMQ for tests that only need some
	// RabbitMQ, for instance amqp://guest:guest@127.0.0.1:5672/.
	EnvAMQPURL = "BARID_TEST_AMQP_URL"
	// EnvRedisURL names a running Redis for tests that only need some Redis, for
	// instance redis://127.0.0.1:6379/0.
	EnvRedisURL = "BARID_TEST_REDIS_URL"
	// EnvPostgresURL names a running PostgreSQL for tests that only need some
	// PostgreSQL, for instance postgres://postgres@127.0.0.1:5432/postgres.
	EnvPostgresURL = "BARID_TEST_POSTGRES_URL"
	// EnvRabbitMQServer is the path of rabbitmq-server. rabbitmqctl is in the same
	// folder.
	EnvRabbitMQServer = "BARID_TEST_RABBITMQ_SERVER"
	// EnvRedisServer is the path of redis-server.
	EnvRedisServer = "BARID_TEST_REDIS_SERVER"
	// EnvPostgresServer is the path of postgres. initdb is in the same folder.
	EnvPostgresServer = "BARID_TEST_POSTGRES_SERVER"
	// EnvPgBouncer is the path of pgbouncer.
	EnvPgBouncer = "BARID_TEST_PGBOUNCER"
)

// findRabbitMQ returns the folder with RabbitMQ's own scripts. Debian's and Red
// Hat's scripts of the same names on the PATH are wrappers that change the
// user, and are skipped.
func findRabbitMQ() (string, error) {
	if path := os.Getenv(EnvRabbitMQServer); path != "" {
		if !executable(path) {
			return "", missing(path, "apt-get install rabbitmq-server", EnvRabbitMQServer, EnvAMQPURL)
		}
		return filepath.Dir(path), nil
	}
	candidates := []string{"/usr/lib/rabbitmq/bin/rabbitmq-server"}
	for _, pattern := range []string{
		"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",
		"/opt/rabbitmq/sbin/rabbitmq-server",
		"/opt/rabbitmq_server-*/sbin/rabbitmq-server",
		"/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
		"/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
	} {
		found, _ := filepath.Glob(pattern)
		candidates = append(candidates, found...)
	}
	if path, err := exec.LookPath("rabbitmq-server"); err == nil {
		candidates = append(candidates, path)
	}
	candidates = append(candidates, "/usr/local/sbin/rabbitmq-server", "/usr/sbin/rabbitmq-server")
	for _, path := range candidates {
		resolved, err := filepath.EvalSymlinks(path)
		if err == nil && !strings.Contains(filepath.Base(resolved), "wrapper") && executable(path) {
			return filepath.Dir(path), nil
		}
	}
	return "", missing("rabbitmq-server", "apt-get install rabbitmq-server", EnvRabbitMQServer, EnvAMQPURL)
}

// findPostgres returns the folder with postgres and initdb of the newest
// version that is installed. Debian keeps them off the PATH.
func findPostgres() (string, error) {
	if path := os.Getenv(EnvPostgresServer); path != "" {
		if !executable(path) {
			return "", missing(path, "apt-get install postgresql", EnvPostgresServer, EnvPostgresURL)
		}
		return filepath.Dir(path), nil
	}
	var folders []string
	if path, err := exec.LookPath("postgres"); err == nil {
		folders = append(folders, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		slices.Reverse(found)
		folders = append(folders, found...)
	}
	for _, folder := range append(folders, "/usr/local/pgsql/bin", "/usr/bin") {
		if executable(filepath.Join(folder, "postgres")) && executable(filepath.Join(folder, "initdb")) {
			return folder, nil
		}
	}
	return "", missing("postgres", "apt-get install postgresql", EnvPostgresServer, EnvPostgresURL)
}

// findProgram looks for name in its variable, on the PATH, and in the usual
// folders.
func findProgram(name, variable, urlVariable, install string) (string, error) {
	if path := os.Getenv(variable); variable != "" && path != "" {
		if !executable(path) {
			return "", missing(path, install, variable, urlVariable)
		}
		return path, nil
	}
	candidates := []string{}
	if path, err := exec.LookPath(name); err == nil {
		candidates = append(candidates, path)
	}
	for _, folder := range []string{
		"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin",
		"/opt/redis/bin", "/usr/lib/erlang/bin",
	} {
		candidates = append(candidates, filepath.Join(folder, name))
	}
	versioned, _ := filepath.Glob("/usr/lib/erlang/erts-*/bin/" + name)
	candidates = append(candidates, versioned...)
	for _, path := range candidates {
		if executable(path) {
			return path, nil
		}
	}
	return "", missing(name, install, variable, urlVariable)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// bareEnv is this process's environment without the variables that the servers
// read.
func bareEnv() []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "RABBITMQ_"), strings.HasPrefix(name, "ERL_"), strings.HasPrefix(name, "PG"),
			name == "HOME", name == "NOTIFY_SOCKET", name == "CONF_ENV_FILE", name == "NODENAME":
		default:
			env = append(env, entry)
		}
	}
	return env
}
