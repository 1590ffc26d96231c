package servers

import (
	"errors"
	"fmt"
)

// What can go wrong, to be matched with errors.Is.
var (
	// ErrMissing: the server's program is not installed, or not where it was
	// looked for; the text says where, and what helps.
	ErrMissing = errors.New("servers: program not found")
	// ErrNotReady: the server was started and did not answer in time, or ended
	// by itself. The text holds the end of its log.
	ErrNotReady = errors.New("servers: server did not become ready")
	// ErrNotRunning: the server is stopped, so that it can't do this.
	ErrNotRunning = errors.New("servers: server is not running")
	// ErrClosed: the server was closed before.
	ErrClosed = errors.New("servers: closed")
)

func missing(program, install, pathVariable, urlVariable string) error {
	return fmt.Errorf("%w: %s: install it (%s), or name it by %s, or name a running server by %s",
		ErrMissing, program, install, pathVariable, urlVariable)
}
