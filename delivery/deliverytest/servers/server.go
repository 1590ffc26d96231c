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

// startTries is how often a new server may lose its ports to somebody else.
const startTries = 5

// Server is what all private servers have in common. Its methods may be called by
// any number of goroutines at once.
type Server struct {
	server *process
	before []*process // what it needs to run
	port   int
	dir    string
	ownDir bool

	startTimeout time.Duration
}

// open finds the server a folder: dir, or a new temporary one.
func (s *Server) open(prefix, dir string, startTimeout time.Duration) (err error) {
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

// begin starts the server as setUp has prepared it, which chooses its ports, and
// closes it when that fails.
func (s *Server) begin(ctx context.Context, setUp func() error) error {
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
		for _, process := range s.before {
			process.close() //nolint:errcheck // the start's error says more
		}
	}
	return errors.Join(err, s.Close())
}

// endWith closes the server at the test's end, and shows the end of its log when
// the test failed.
func (s *Server) endWith(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(func() {
		logTail(tb, s.server)
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
}

// Addr is host and port.
func (s *Server) Addr() string { return loopback(s.port) }

// Port is the port on 127.0.0.1. It stays the same over restarts.
func (s *Server) Port() int { return s.port }

// Dir holds the server's data.
func (s *Server) Dir() string { return s.dir }

// PID is the process ID of the server's last run.
func (s *Server) PID() int { return s.server.pid() }

// Running says whether the server's process lives, be it paused.
func (s *Server) Running() bool { return s.server.running() }

// LogTail is the end of the server's log.
func (s *Server) LogTail() string { return s.server.tail() }

// Start starts the server again, on the same data and ports, and returns when it
// answers. A server that runs is left alone.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.startTimeout)
	defer cancel()
	for _, process := range s.before {
		if err := process.start(ctx); err != nil {
			return err
		}
	}
	return s.server.start(ctx)
}

// Stop ends the server as an administrator would, one who doesn't wait for the
// clients, and waits until it is gone.
func (s *Server) Stop() error { return s.server.stop() }

// Kill ends the server with all its processes at once, as a power cut would,
// except that the system's write cache stays.
func (s *Server) Kill() error { return s.server.kill() }

// Pause stops the server's processes from running, with all connections open.
func (s *Server) Pause() error { return s.server.signal(pause) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.server.signal(resume) }

// Close ends the server for good and removes its temporary folder. Closing
// again returns nil.
func (s *Server) Close() error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.close())
	}
	for _, process := range s.before {
		errs = append(errs, process.close())
	}
	if s.ownDir {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// dial connects to a port of 127.0.0.1, for a short question.
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
