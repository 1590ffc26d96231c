package servers

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// startTries is how often a new server may find that its ports were taken by
// another process.
const startTries = 5

// Server is what all private servers have in common. Its methods may be called
// by any number of goroutines at once.
type Server struct {
	server       *process
	dependencies []*process // that it needs to run
	port         int
	dir          string
	ownDir       bool

	startTimeout time.Duration
}

// openDir finds the server's folder: dir, or a new temporary one.
func (s *Server) openDir(prefix, dir string, startTimeout time.Duration) (err error) {
	if s.startTimeout = startTimeout; startTimeout <= 0 {
		s.startTimeout = 2 * time.Minute
	}
	if dir != "" {
		s.dir, err = filepath.Abs(dir)
		return err
	}
	s.dir, err = os.MkdirTemp("", prefix)
	s.ownDir = err == nil
	return err
}

// startNew starts the server after setUp has prepared it, which chooses its
// ports. It closes the server when that fails.
func (s *Server) startNew(ctx context.Context, setUp func() error) error {
	var err error
	for range startTries {
		if err = setUp(); err == nil {
			err = s.Start(ctx)
		}
		if err == nil {
			return nil
		}
		if !portTaken(err.Error()) || ctx.Err() != nil {
			break
		}
		for _, process := range s.dependencies {
			process.close() //nolint:errcheck // the start's error says more
		}
	}
	return errors.Join(err, s.Close())
}

// closeAtEnd closes the server at the test's end, and shows the end of its log
// when the test failed.
func (s *Server) closeAtEnd(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(func() {
		logTail(tb, s.server)
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
}

// Addr is the host and the port.
func (s *Server) Addr() string { return loopback(s.port) }

// Port is the port on 127.0.0.1. It stays the same over restarts.
func (s *Server) Port() int { return s.port }

// Dir holds the server's data.
func (s *Server) Dir() string { return s.dir }

// PID is the process ID of the server's last run.
func (s *Server) PID() int { return s.server.pid() }

// Running returns whether the server's process exists, even if it is paused.
func (s *Server) Running() bool { return s.server.running() }

// LogTail is the end of the server's log.
func (s *Server) LogTail() string { return s.server.tail() }

// Start starts the server again, on the same data and ports, and returns when
// it answers. It does nothing when the server runs.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.startTimeout)
	defer cancel()
	for _, process := range s.dependencies {
		if err := process.start(ctx); err != nil {
			return err
		}
	}
	return s.server.start(ctx)
}

// Stop ends the server in order, without waiting for its clients, and returns
// when it has ended.
func (s *Server) Stop() error { return s.server.stop() }

// Kill ends the server with all of its processes at once. It is like a power
// cut, except that the system's write cache is kept.
func (s *Server) Kill() error { return s.server.kill() }

// Pause stops the server's processes from running. All connections stay open.
func (s *Server) Pause() error { return s.server.signal(pause) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.server.signal(resume) }

// Close ends the server for good, and removes its temporary folder. Closing
// again returns nil.
func (s *Server) Close() error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.close())
	}
	for _, process := range s.dependencies {
		errs = append(errs, process.close())
	}
	if s.ownDir {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// dial connects to a port of 127.0.0.1, to ask a short question.
func dial(ctx context.Context, port int) (net.Conn, error) {
	const answerTimeout = 10 * time.Second
	dialer := net.Dialer{Timeout: answerTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", loopback(port))
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
