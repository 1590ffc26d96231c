package rabbitmq

import (
	"bufio"
	"net"
	"sync"
	"time"
)

const (
	// readBytes is the size of the read buffer. The AMQP client reads 4 KiB at a
	// time; a larger buffer spares system calls.
	readBytes = 64 << 10
	// fullBytes is how much may wait to be written before publishers are held
	// back.
	fullBytes = 1 << 20
	// keepBytes is the largest write buffer that is kept for reuse.
	keepBytes = 1 << 20
)

// tcpConn is the TCP connection below an AMQP connection. Write only appends to
// a buffer, which a goroutine of its own sends with a deadline. This has two
// reasons. A peer that has stopped reading blocks nobody in a write, least of
// all while the AMQP client holds one of its locks. And what several publishers
// write in the meantime goes out in one system call.
type tcpConn struct {
	net.Conn
	reader  *bufio.Reader
	timeout time.Duration // of one write

	mu      sync.Mutex
	buffer  []byte        // not yet taken by the sender
	pending int           // bytes not yet sent, those being sent included
	room    chan struct{} // closed when there is room; nil while nobody waits for it
	closing bool          // send what is buffered, then close
	dead    bool

	wake  chan struct{} // capacity 1: there is something to send, or the end
	ended chan struct{} // closed when the sender has ended
}

func newTCPConn(conn net.Conn, timeout time.Duration) *tcpConn {
	c := &tcpConn{
		Conn:    conn,
		reader:  bufio.NewReaderSize(conn, readBytes),
		timeout: timeout,
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
	}
	go c.sendLoop()
	return c
}

// Read implements net.Conn.
func (c *tcpConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// Write implements net.Conn. It never blocks; a failure to send closes the
// connection, which the reading side notices.
func (c *tcpConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.dead || c.closing {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	first := len(c.buffer) == 0
	c.buffer = append(c.buffer, p...)
	c.pending += len(p)
	c.mu.Unlock()
	if first {
		c.wakeSender()
	}
	return len(p), nil
}

// SetDeadline implements net.Conn. It bounds reads only; the sender sets its own
// deadlines.
func (c *tcpConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. It changes nothing; the sender sets its
// own deadlines.
func (c *tcpConn) SetWriteDeadline(time.Time) error { return nil }

// Close implements net.Conn. The sender sends what is buffered, for a second at
// most, and then closes the connection. Close does not wait for that.
func (c *tcpConn) Close() error {
	c.mu.Lock()
	first := !c.closing && !c.dead
	c.closing = true
	c.mu.Unlock()
	if first {
		c.Conn.SetWriteDeadline(time.Now().Add(min(c.timeout, time.Second))) //nolint:errcheck // the connection is about to end
		c.wakeSender()
	}
	return nil
}

// kill closes the connection at once.
func (c *tcpConn) kill() {
	c.mu.Lock()
	c.dead = true
	c.signalRoom()
	c.mu.Unlock()
	c.Conn.Close() //nolint:errcheck // it is given up
	c.wakeSender()
}

func (c *tcpConn) wakeSender() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// full returns nil when there is room for another message, or else a channel
// that is closed when there is room again or the connection is dead.
func (c *tcpConn) full() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending < fullBytes || c.dead {
		return nil
	}
	if c.room == nil {
		c.room = make(chan struct{})
	}
	return c.room
}

// signalRoom wakes everybody that waits for room. The caller holds c.mu.
func (c *tcpConn) signalRoom() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// sendLoop sends what is buffered until the connection is closed or dead.
func (c *tcpConn) sendLoop() {
	defer close(c.ended)
	defer c.kill()
	var sending []byte
	for range c.wake {
		c.mu.Lock()
		sending, c.buffer = c.buffer, sending[:0]
		dead, closing := c.dead, c.closing
		c.mu.Unlock()
		if dead {
			return
		}
		if len(sending) > 0 {
			if !closing {
				c.Conn.SetWriteDeadline(time.Now().Add(c.timeout)) //nolint:errcheck // then the write fails
			}
			if _, err := c.Conn.Write(sending); err != nil {
				return
			}
		}
		c.mu.Lock()
		c.pending -= len(sending)
		if c.pending < fullBytes {
			c.signalRoom()
		}
		finished := c.closing && len(c.buffer) == 0
		c.mu.Unlock()
		if finished {
			return
		}
		if cap(sending) > keepBytes {
			sending = nil
		}
	}
}
