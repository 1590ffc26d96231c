package servers

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
)

// Shared is at most one server of each kind for all tests of a package. Each is
// started by the first test that asks for it. The zero value is ready to use.
// It has to be closed at the end, most simply by Main. Its methods may be
// called by any number of tests at once.
type Shared struct {
	rabbitMQ lazy[*RabbitMQ]
	redis    lazy[*Redis]
	postgres lazy[*Postgres]
	distant  farServers
}

// AMQP is the URL of a running RabbitMQ: the one that BARID_TEST_AMQP_URL
// names, or else the shared one. The tests must not stop it. It may hold what
// other tests left, so use Unique for names.
func (s *Shared) AMQP(tb testing.TB) string {
	tb.Helper()
	skipShort(tb, "RabbitMQ")
	if url := os.Getenv(EnvAMQPURL); url != "" {
		return s.distant.far(tb, url)
	}
	return s.distant.far(tb, s.RabbitMQ(tb).URL())
}

// RabbitMQ is the shared RabbitMQ itself, never the one of the environment. A
// test that stops it must start it again before the test ends.
func (s *Shared) RabbitMQ(tb testing.TB) *RabbitMQ {
	tb.Helper()
	skipShort(tb, "RabbitMQ")
	server, err := s.rabbitMQ.get(func() (*RabbitMQ, error) {
		return NewRabbitMQ(context.Background(), RabbitMQConfig{})
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { logTail(tb, server.server) })
	return server
}

// RedisURL is the URL of a running Redis: the one that BARID_TEST_REDIS_URL
// names, or else the shared one. It may hold what other tests left, so use
// Unique for names.
func (s *Shared) RedisURL(tb testing.TB) string {
	tb.Helper()
	skipShort(tb, "Redis")
	if url := os.Getenv(EnvRedisURL); url != "" {
		return s.distant.far(tb, url)
	}
	return s.distant.far(tb, s.Redis(tb).URL())
}

// Redis is the shared Redis itself, never the one of the environment. A test
// that stops it must start it again before the test ends. Its data is lost
// then.
func (s *Shared) Redis(tb testing.TB) *Redis {
	tb.Helper()
	skipShort(tb, "Redis")
	server, err := s.redis.get(func() (*Redis, error) {
		return NewRedis(context.Background(), RedisConfig{})
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { logTail(tb, server.server) })
	return server
}

// PostgresURL is the URL of a running PostgreSQL: the one that
// BARID_TEST_POSTGRES_URL names, or else the shared one. It may hold what other
// tests left, so use unique names.
func (s *Shared) PostgresURL(tb testing.TB) string {
	tb.Helper()
	skipShort(tb, "PostgreSQL")
	if url := os.Getenv(EnvPostgresURL); url != "" {
		return s.distant.far(tb, url)
	}
	return s.distant.far(tb, s.Postgres(tb).URL())
}

// Postgres is the shared PostgreSQL itself, never the one of the environment.
// It does not sync its commits: only after a power cut would that make a
// difference. A test that stops it must start it again before the test ends.
func (s *Shared) Postgres(tb testing.TB) *Postgres {
	tb.Helper()
	skipShort(tb, "PostgreSQL")
	server, err := s.postgres.get(func() (*Postgres, error) {
		return NewPostgres(context.Background(), PostgresConfig{NoSync: true})
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { logTail(tb, server.server) })
	return server
}

// Close ends the servers that were started.
func (s *Shared) Close() error {
	s.distant.close()
	var errs []error
	if server := s.rabbitMQ.take(); server != nil {
		errs = append(errs, server.Close())
	}
	if server := s.redis.take(); server != nil {
		errs = append(errs, server.Close())
	}
	if server := s.postgres.take(); server != nil {
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}

// Main wraps a *testing.M so that its Run closes the servers after the tests.
// The result can be passed to goleak.VerifyTestMain.
func (s *Shared) Main(m Runner) Runner { return &main{shared: s, tests: m} }

// Runner runs tests and returns the exit code. *testing.M is one.
type Runner interface{ Run() int }

type main struct {
	shared *Shared
	tests  Runner
}

func (m *main) Run() int {
	code := m.tests.Run()
	if err := m.shared.Close(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n") //nolint:errcheck // nowhere else to tell
		return max(code, 1)
	}
	return code
}

// lazy is a server that the first caller starts. The others get the same
// server, or the error of the start, because a start that fails is slow and not
// repeated.
type lazy[T any] struct {
	mu     sync.Mutex
	asked  bool
	server T
	err    error
}

func (l *lazy[T]) get(start func() (T, error)) (T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.asked {
		l.asked = true
		l.server, l.err = start()
	}
	return l.server, l.err
}

// take returns the server and forgets it. It returns nothing when none was
// started.
func (l *lazy[T]) take() T {
	l.mu.Lock()
	defer l.mu.Unlock()
	var none T
	server := l.server
	l.server, l.asked, l.err = none, false, nil
	return server
}

// Unique is a name for the test's queues or keys that no other test and no
// earlier run has used. It is the test's name, in characters that brokers
// allow, and a random end. It has at most 80 bytes.
func Unique(tb testing.TB) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		default:
			return '-'
		}
	}, tb.Name())
	return name[:min(len(name), 67)] + "-" + strings.ToLower(rand.Text()[:12])
}

func skipShort(tb testing.TB, server string) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs a real " + server + ", and -short was asked for")
	}
}

// logTail shows the end of a server's log if the test failed.
func logTail(tb testing.TB, server *process) {
	tb.Helper()
	if tb.Failed() {
		tb.Logf("the log of %s ends with:\n%s", server.name, server.tail())
	}
}
