package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// suite is a set of tests.
type suite struct {
	name     string
	packages []string
	skip     string // tests that are left out, as go test -skip
}

// sqliteTests are those that need no server. Among the tests that are left out they come
// last: "./" matches the beginning of any test, and then go test looks no further.
const sqliteTests = "^TestSQLite|./^SQLite"

var (
	rabbitMQSuite = suite{name: "transport", packages: []string{"./delivery/rabbitmq"}}
	faultsSuite   = suite{name: "quick fault rows", packages: []string{"./delivery/rabbitmq/faults"}}
	redisSuite    = suite{name: "keys, dead letters, breakers", packages: []string{
		"./idempotency/redisstore", "./idempotency/redisstore/eviction", "./dlq/redisstore", "./breaker/redisstate",
	}}
	sqlSuite = suite{
		name: "store, keys, dead letters", packages: []string{"./delivery/sqlstore"},
		skip: sqliteTests,
	}
	// Left out are tests whose connections have settings or users of their own, which
	// a pooler keeps from them, and one that watches the server's own connections.
	pooledSuite = suite{
		name: "store, keys, dead letters, pooled", packages: sqlSuite.packages,
		skip: "TestByteaOutputEscape|TestStatementTimeout|TestPermanentFailureToOpen|TestKeysAreClaimedCrosswise|" + sqliteTests,
	}
)

// The releases of Debian, oldest first. The machine's own servers are the oldest
// that are supported.
const (
	machine = "this machine"
	newer   = "trixie"
	newest  = "forky"
)

// row is a suite on a server of one release.
type row struct {
	server  server
	release string
	suite   suite
}

var allRows = []row{
	{rabbitMQ, machine, rabbitMQSuite},
	{rabbitMQ, newer, rabbitMQSuite},
	{rabbitMQ, newest, rabbitMQSuite},
	{rabbitMQ, newest, faultsSuite},
	{redis, machine, redisSuite},
	{redis, newer, redisSuite},
	{valkey, newer, redisSuite},
	{valkey, newest, redisSuite},
	{postgreSQL, machine, sqlSuite},
	{postgreSQL, newer, sqlSuite},
	{postgreSQL, newest, sqlSuite},
	{pgBouncer, machine, pooledSuite},
}

// server is a kind of server.
type server struct {
	name     string
	packages []string // of Debian
	// versionOf is the start of the name of the package whose version is shown.
	versionOf string
}

var (
	rabbitMQ   = server{"RabbitMQ", []string{"rabbitmq-server"}, "rabbitmq-server"}
	redis      = server{"Redis", []string{"redis-server"}, "redis-server"}
	valkey     = server{"Valkey", []string{"valkey-server"}, "valkey-server"}
	postgreSQL = server{"PostgreSQL", []string{"postgresql"}, "postgresql-"}
	pgBouncer  = server{"PgBouncer", []string{"postgresql", "pgbouncer"}, "pgbouncer"}
)

// version is the server's among those packages. A package such as postgresql has
// only the number of the release; that with the server is named postgresql-17. Of
// several it is the newest, which package servers takes as well.
func (s server) version(packages map[string]string) string {
	version := "?"
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		rest, found := strings.CutPrefix(name, s.versionOf)
		if found && strings.Trim(rest, "0123456789") == "" {
			version = upstream(packages[name])
		}
	}
	return version
}

// upstream is a Debian version without what Debian has added: 8.0.2 of 5:8.0.2-3.
func upstream(version string) string {
	if _, rest, found := strings.Cut(version, ":"); found {
		version = rest
	}
	if end := strings.LastIndexByte(version, '-'); end > 0 {
		version = version[:end]
	}
	version, _, _ = strings.Cut(version, "+")
	return version
}

func (r row) String() string {
	return fmt.Sprintf("%s of %s, %s", r.server.name, r.release, r.suite.name)
}
