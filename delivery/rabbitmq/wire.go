package rabbitmq

import (
	"bufio"
	"net"
	"sync"
	"time"
)

const (
	// readBytes spares system calls: the AMQP client reads 4 KiB at a time.
	readBytes = 64 << 10
	// roomBytes is how much may wait to be written before publishers are held.
	roomBytes = 1 << 20
	// keepBytes is the largest write buffer that is kept for reuse.
	keepBytes = 1 << 20
)

// wire is the TCP connection below an AMQP connection. Write only appends to a
// buffer that a goroutine of its own sends, with a deadline. So nothing above
// ever blocks in a write to a peer that has stopped reading, least of all while
// it holds one of the AMQP client's locks, and what many publishers write in
// the meantime goes out in one system call.
type wire struct {
	net.Conn
	reader  *bufio.Reader
	timeout time.Duration

	mu      sync.Mutex
	buffer  []byte        // not yet taken by the sender
	pending int           // bytes not yet sent, those being sent included
	room    chan struct{} // not nil while somebody waits for room
	closing bool          // send what is there, then close
	dead    bool

	wake  chan struct{} // capacity 1: there is something to send, or to end
	ended chan struct{} // the sender is gone
}

func newWire(conn net.Conn, timeout time.Duration) *wire {
	w := &wire{
		Conn:    conn,
		reader:  bufio.NewReaderSize(conn, readBytes),
		timeout: timeout,
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
	}
	go w.send()
	return w
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) { return w.reader.Read(p) }

// Write implements net.Conn. It never blocks; a failure to send closes the
// connection, which the reading side notices.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	if w.dead || w.closing {
		w.mu.Unlock()
		return 0, net.ErrClosed
	}
	first := len(w.buffer) == 0
	w.buffer = append(w.buffer, p...)
	w.pending += len(p)
	w.mu.Unlock()
	if first {
		w.rouse()
	}
	return len(p), nil
}

// SetDeadline bounds reads only; the sender sets its own deadlines.
func (w *wire) SetDeadline(t time.Time) error { return w.SetReadDeadline(t) }

// SetWriteDeadline changes nothing: the sender sets its own deadlines.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// Close sends what is buffered, for a short time, and then closes the
// connection. It does not wait for that.
func (w *wire) Close() error {
	w.mu.Lock()
	first := !w.closing && !w.dead
	w.closing = true
	w.mu.Unlock()
	if first {
		w.Conn.SetWriteDeadline(time.Now().Add(min(w.timeout, time.Second))) //nolint:errcheck // a closed one is what we want
		w.rouse()
	}
	return nil
}

// kill closes the connection at once.
func (w *wire) kill() {
	w.mu.Lock()
	w.dead = true
	w.leaveRoom()
	w.mu.Unlock()
	w.Conn.Close() //nolint:errcheck // nothing is expected of it any more
	w.rouse()
}

func (w *wire) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// full returns nil when there is room for another message, or else a channel
// that is closed when there is room again or the connection is dead.
func (w *wire) full() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending < roomBytes || w.dead {
		return nil
	}
	if w.room == nil {
		w.room = make(chan struct{})
	}
	return w.room
}

// leaveRoom lets those go on who wait for room. w.mu is held.
func (w *wire) leaveRoom() {
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

func (w *wire) send() {
	defer close(w.ended)
	defer w.kill()
	var sending []byte
	for range w.wake {
		w.mu.Lock()
		sending, w.buffer = w.buffer, sending[:0]
		dead, closing := w.dead, w.closing
		w.mu.Unlock()
		if dead {
			return
		}
		if len(sending) > 0 {
			if !closing {
				w.Conn.SetWriteDeadline(time.Now().Add(w.timeout)) //nolint:errcheck // then the write fails
			}
			if _, err := w.Conn.Write(sending); err != nil {
				return
			}
		}
		w.mu.Lock()
		w.pending -= len(sending)
		if w.pending < roomBytes {
			w.leaveRoom()
		}
		finished := w.closing && len(w.buffer) == 0
		w.mu.Unlock()
		if finished {
			return
		}
		if cap(sending) > keepBytes {
			sending = nil
		}
	}
}
