package rabbitmq

import (
	"context"
	"log/slog"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// sharedConn is a connection for one purpose, for all who join. It is made when the
// first of them does, and closed when the last one has left. One that is lost is
// replaced for those who join again.
type sharedConn struct {
	dialer  *dialer
	purpose string
	number  int // among those with the same purpose, in the log

	mu   sync.Mutex
	conn *connection // for those who join; nil when there is none
	try  *try        // to make it; nil when there is none
}

// try is a try to connect. All who join meanwhile wait for it.
type try struct {
	cancel  context.CancelCauseFunc
	waiting int           // how many wait for it
	done    chan struct{} // closed when conn and err are known
	conn    *connection
	err     *ConnectError
}

// join connects until that succeeds or ctx ends. A permanent failure is returned at
// once, unless the caller is patient: then it is tried again after the longest delay.
// As soon as any connection of the dialer's succeeds after one that failed, all that
// wait are tried again. The error is a *ConnectError.
func (s *sharedConn) join(ctx context.Context, delay *reconnectDelay, patient bool) (*connection, error) {
	if err := ctx.Err(); err != nil {
		return nil, &ConnectError{Address: s.dialer.address(), Cause: err}
	}
	for {
		awake := s.dialer.back.listen()
		conn, fault := s.joinOnce(ctx)
		if fault == nil {
			return conn, nil
		}
		if fault.Permanent && !patient {
			return nil, fault
		}
		if ctx.Err() == nil && s.dialer.wait(ctx, delay.next(fault.Permanent), awake) {
			delay.reset()
		}
		if err := ctx.Err(); err != nil {
			return nil, &ConnectError{Address: fault.Address, Permanent: fault.Permanent, Cause: fault.Cause, Context: err}
		}
	}
}

// joinOnce returns the connection that there is, or tries once to make it.
func (s *sharedConn) joinOnce(ctx context.Context) (*connection, *ConnectError) {
	s.mu.Lock()
	if s.conn != nil && !s.conn.amqp.IsClosed() {
		defer s.mu.Unlock()
		s.conn.users++
		return s.conn, nil
	}
	if s.try == nil {
		s.try = s.begin()
	}
	t := s.try
	t.waiting++
	s.mu.Unlock()
	select {
	case <-t.done:
		return t.conn, t.err
	case <-ctx.Done():
		return s.stopWaiting(t, ctx.Err())
	}
}

// begin begins a try. The caller holds s.mu.
func (s *sharedConn) begin() *try {
	ctx, cancel := context.WithCancelCause(context.Background())
	t := &try{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		defer cancel(nil)
		conn, fault := s.dialer.dial(ctx, s.purpose)
		if fault != nil {
			if ctx.Err() == nil { // else those who waited are told
				s.logFault(fault)
			}
			t.err = fault
		} else {
			conn.home = s
			blocked := conn.amqp.NotifyBlocked(make(chan amqp.Blocking, 16))
			s.log("broker connected", slog.LevelInfo, conn.address)
			go s.watch(conn, blocked)
		}
		if !s.end(t, conn) {
			conn.close()
		}
	}()
	return t
}

// end ends a try that has come to this. It returns false if the connection is to be
// closed, because nobody waits for it any longer.
func (s *sharedConn) end(t *try, conn *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.waiting == 0 {
		return conn == nil
	}
	s.try = nil
	if conn != nil {
		conn.users = t.waiting
		s.conn, t.conn = conn, conn
	}
	return true
}

// stopWaiting is for one of those that wait for a try, whose context has ended. When
// it is the last one, the try ends as well.
func (s *sharedConn) stopWaiting(t *try, cause error) (*connection, *ConnectError) {
	s.mu.Lock()
	ended, last := s.try != t, false
	if !ended {
		t.waiting--
		last = t.waiting == 0
	}
	if last {
		s.try = nil
		t.cancel(cause)
	}
	s.mu.Unlock()
	if ended || last {
		<-t.done
	}
	switch {
	case ended:
		return t.conn, t.err
	case last && t.err != nil:
		return nil, t.err
	}
	return nil, &ConnectError{Address: s.dialer.address(), Cause: cause}
}

// leave is called once by each who has joined. The last one closes the connection.
func (s *sharedConn) leave(conn *connection) {
	s.mu.Lock()
	conn.users--
	last := conn.users == 0
	if last && s.conn == conn {
		s.conn = nil
	}
	s.mu.Unlock()
	if last {
		conn.close()
	}
}

// retire has nobody join the connection any longer. Those who have go on.
func (s *sharedConn) retire(conn *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == conn {
		s.conn = nil
	}
}

// watch follows what becomes of a connection, until its end.
func (s *sharedConn) watch(conn *connection, blocked <-chan amqp.Blocking) {
	for blocking := range blocked {
		conn.blocked.Store(blocking.Active)
		conn.changed.notify()
		if blocking.Active {
			s.log("publishing blocked", slog.LevelWarn, conn.address, slog.String("reason", blocking.Reason))
		} else {
			s.log("publishing unblocked", slog.LevelInfo, conn.address)
		}
	}
	<-conn.gone
	if !conn.ordered {
		s.log("broker connection lost", levelOf(conn.cause), conn.address, slog.Any("error", conn.cause))
	}
}

func (s *sharedConn) logFault(fault *ConnectError) {
	s.log("broker connect failed", levelOf(fault.Cause), fault.Address,
		slog.Bool("permanent", fault.Permanent), slog.Any("error", fault.Cause))
}

func (s *sharedConn) log(event string, level slog.Level, address string, more ...slog.Attr) {
	attributes := append([]slog.Attr{
		slog.String("purpose", s.purpose), slog.Int("connection", s.number), slog.String("address", address),
	}, more...)
	s.dialer.config.Logger.LogAttrs(context.Background(), level, event, attributes...)
}

// levelOf is the level of an event with that cause: an error remains until somebody
// changes something.
func levelOf(cause error) slog.Level {
	if permanent(cause) {
		return slog.LevelError
	}
	return slog.LevelWarn
}
