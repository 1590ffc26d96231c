package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func TestVersions(t *testing.T) {
	packages := map[string]string{
		"rabbitmq-server": "4.3.6-1", "redis-server": "5:8.0.2-3+deb13u1", "redis-tools": "5:1.0-1",
		"postgresql": "17+278", "postgresql-15": "15.9-1", "postgresql-17": "17.5-1", "postgresql-common": "278", "postgresql-client-17": "9.9-1",
		"pgbouncer": "1.18.0-1+b1",
	}
	for want, server := range map[string]server{
		"4.3.6": rabbitMQ, "8.0.2": redis, "17.5": postgreSQL, "1.18.0": pgBouncer, "?": valkey,
	} {
		assert.Equal(t, want, server.version(packages), server.name)
	}
}

// Every row's server comes from a release that is provisioned.
func TestRows(t *testing.T) {
	names := map[string]bool{}
	for _, row := range allRows {
		assert.Contains(t, []string{machine, newer, newest}, row.release)
		assert.NotEmpty(t, row.suite.packages)
		assert.False(t, names[row.String()], "%s is there twice", row)
		names[row.String()] = true
	}
}

// A command whose reader fails does not wait for another.
func TestPipe(t *testing.T) {
	run := func(from, to string) error {
		return pipe(exec.CommandContext(t.Context(), "sh", "-c", from), exec.CommandContext(t.Context(), "sh", "-c", to))
	}
	require.NoError(t, run("echo a", "grep -q a"))
	require.Error(t, run("echo a; false", "cat"))
	require.Error(t, run("echo a", "false"))
	require.Error(t, run("yes", "false"))
	require.Error(t, pipe(exec.CommandContext(t.Context(), "yes"), exec.CommandContext(t.Context(), "/nowhere")))
}

func TestCount(t *testing.T) {
	var r result
	require.NoError(t, r.count(strings.NewReader(`
		{"Action":"run","Test":"A"}
		{"Action":"output","Test":"A/b","Output":"    --- PASS: A/b\n"}
		{"Action":"pass","Test":"A/b"}
		{"Action":"pass","Test":"A"}
		{"Action":"skip","Test":"S"}
		{"Action":"output","Test":"F","Output":"what went wrong\n"}
		{"Action":"fail","Test":"F"}
		{"Action":"output","Output":"FAIL\n"}
		{"Action":"fail"}`)))
	assert.Equal(t, []int{2, 1}, []int{r.passed, r.failed}, "and one was skipped")
	assert.Equal(t, "1 failed", r.verdict())
	damaged := strings.NewReader("no JSON" + strings.Repeat(" ", 1<<20))
	require.Error(t, new(result).count(damaged))
	assert.Zero(t, damaged.Len(), "whoever writes must not wait")
}

func TestVerdicts(t *testing.T) {
	good := result{row: allRows[0], version: "1", passed: 3, took: time.Second}
	unreachable := result{row: allRows[1], missing: errMirror}
	for name, test := range map[string]struct {
		results  []result
		optional bool
		fails    bool
	}{
		"all passed":                 {[]result{good}, false, false},
		"a test failed":              {[]result{good, {passed: 9, failed: 1}}, true, true},
		"nothing ran":                {[]result{{}}, true, true},
		"the tests broke off":        {[]result{{passed: 9, faults: []error{errors.New("timeout")}}}, true, true},
		"no mirror":                  {[]result{good, unreachable}, false, true},
		"no mirror, as allowed":      {[]result{good, unreachable}, true, false},
		"missing for another reason": {[]result{good, {missing: errors.New("disk full")}}, true, true},
	} {
		err := verdict(test.results, test.optional)
		assert.Equal(t, test.fails, err != nil, name)
	}
}

func TestTableReplacesTheLastOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table.md")
	require.NoError(t, os.WriteFile(path, []byte("# Versions\n\n"+marker+"\nold\n"), 0o600))
	require.NoError(t, writeTable(path, []result{{row: allRows[0], version: "3.10.8", passed: 7, took: 90 * time.Second}}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Contains(t, string(text), "# Versions\n\n"+marker)
	assert.Contains(t, string(text), "| RabbitMQ | 3.10.8 | transport | 7 | ok | 90 |\n")
	assert.NotContains(t, string(text), "old")
	require.NoError(t, os.WriteFile(path, []byte("# Something else\n"), 0o600))
	require.Error(t, writeTable(path, nil))
}

// A server that a release lacks is the machine's own.
func TestPrograms(t *testing.T) {
	root, folder := t.TempDir(), t.TempDir()
	for _, path := range []string{"usr/bin/valkey-server", "usr/lib/postgresql/18/bin/postgres", "usr/lib/postgresql/18/bin/initdb"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), nil, 0o600))
	}
	env, err := programs(root, folder)
	require.NoError(t, err)
	assert.Equal(t, []string{servers.EnvPostgresServer + "=" + filepath.Join(folder, "postgres")}, env)
	script, err := os.ReadFile(filepath.Join(folder, "initdb"))
	require.NoError(t, err)
	assert.Contains(t, string(script), `--wd="$PWD" /usr/lib/postgresql/18/bin/initdb "$@"`)
	script, err = os.ReadFile(filepath.Join(folder, "valkey-server"))
	require.NoError(t, err)
	assert.Contains(t, string(script), `exec chroot "`+root+`" /usr/bin/valkey-server "$@"`)
}
