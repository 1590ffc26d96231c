package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// matrix runs rows, one after another: two suites at once would disturb each other.
type matrix struct {
	rows      []row
	run       string
	cache     string
	temporary string // all users can reach it
	binaries  map[string]string
	releases  map[string]*release // by name; those that could not be had are missing
	failures  map[string]error    // why
}

func newMatrix(ctx context.Context, o options) (*matrix, error) {
	temporary, err := enterSandbox()
	if err != nil {
		return nil, err
	}
	cache, err := filepath.Abs(o.cache)
	if err != nil {
		return nil, err
	}
	m := &matrix{
		run: o.run, cache: cache, temporary: temporary, binaries: map[string]string{},
		releases: map[string]*release{}, failures: map[string]error{},
	}
	for _, row := range allRows {
		if o.rows.MatchString(row.String()) {
			m.rows = append(m.rows, row)
		}
	}
	if len(m.rows) == 0 {
		return nil, errors.New("no row matches")
	}
	for _, folder := range []string{m.data(), m.binariesFolder()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(m.data(), 0o777|os.ModeSticky); err != nil {
		return nil, err
	}
	return m, m.provideReleases(ctx)
}

// data is where the servers keep their data. It has the same path in each root.
func (m *matrix) data() string           { return filepath.Join(m.temporary, "data") }
func (m *matrix) binariesFolder() string { return filepath.Join(m.temporary, "tests") }

// provideReleases fetches and mounts the releases of the rows.
func (m *matrix) provideReleases(ctx context.Context) error {
	for _, name := range []string{newer, newest} {
		if !slices.ContainsFunc(m.rows, func(r row) bool { return r.release == name }) {
			continue
		}
		var packages []string
		for _, row := range allRows {
			if row.release == name {
				packages = append(packages, row.server.packages...)
			}
		}
		begin := time.Now()
		r, err := provision(ctx, name, m.cache, packages)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			r.root = filepath.Join(m.temporary, name)
			err = mountRoot(r.unpacked, r.root, m.data())
		}
		if err != nil {
			fmt.Printf("matrix: %s is missing: %s\n", name, err)
			m.failures[name] = err
			continue
		}
		fmt.Printf("matrix: %s is ready after %.0f s\n", name, time.Since(begin).Seconds())
		m.releases[name] = r
	}
	var err error
	m.releases[machine], err = installed(ctx)
	return err
}

// runAll runs the rows. It returns what it has when ctx ends.
func (m *matrix) runAll(ctx context.Context) ([]result, error) {
	var results []result
	for _, row := range m.rows {
		r := m.runRow(ctx, row)
		results = append(results, r)
		fmt.Println("matrix:", strings.Join(r.cells(), "  "))
		if ctx.Err() != nil {
			return results, errInterrupted
		}
	}
	return results, nil
}

// runRow runs the tests of a row.
func (m *matrix) runRow(ctx context.Context, each row) (r result) {
	r = result{row: each, version: "?"}
	from := m.releases[each.release]
	if from == nil {
		r.missing = m.failures[each.release]
		return r
	}
	r.version = each.server.version(from.packages)
	begin := time.Now()
	defer func() { r.took = time.Since(begin) }()
	env, end, err := m.environment(ctx, each, from)
	if err != nil {
		r.fail(err)
		return r
	}
	defer end()
	for _, pkg := range each.suite.packages {
		if err := m.test(ctx, pkg, each.suite, env, &r); err != nil {
			r.fail(err)
		}
	}
	return r
}

// environment has the tests use the row's servers. Servers that it starts itself are
// closed by end.
func (m *matrix) environment(ctx context.Context, of row, from *release) (env []string, end func(), err error) {
	end = func() {}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "BARID_TEST_") {
			env = append(env, entry)
		}
	}
	env = append(env, "TMPDIR="+m.data())
	bin := filepath.Join(m.temporary, "bin", of.release)
	if of.release != machine {
		found, err := programs(from.root, bin)
		if err != nil {
			return nil, end, err
		}
		env = append(env, found...)
	}
	switch of.server.name {
	case valkey.name:
		env = append(env, servers.EnvRedisServer+"="+filepath.Join(bin, "valkey-server"))
	case pgBouncer.name:
		pooler, err := startPooledPostgres(ctx)
		if err != nil {
			return nil, end, err
		}
		env = append(env, servers.EnvPostgresURL+"="+pooler.url)
		end = pooler.close
	}
	return env, end, nil
}

// binary builds the tests of a package, once.
func (m *matrix) binary(ctx context.Context, pkg string) (string, error) {
	if path := m.binaries[pkg]; path != "" {
		return path, nil
	}
	path := filepath.Join(m.binariesFolder(), strings.ReplaceAll(strings.TrimPrefix(pkg, "./"), "/", "-")+".test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", path, pkg)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build the tests of %s: %w", pkg, err)
	}
	m.binaries[pkg] = path
	return path, nil
}
