package servers

import (
	"errors"
	"fmt"
)

// The errors of this package, to be matched with errors.Is.
var (
	// ErrMissing says that the server's program is not installed, or was not found.
	// The text says what to do about it.
	ErrMissing = errors.New("servers: program not found")
	// ErrNotReady says that the server was started and did not answer in time, or
	// ended. The text has the end of its log.
	ErrNotReady = errors.New("servers: server did not become ready")
	// ErrNotRunning says that the server is stopped, and can't do this.
	ErrNotRunning = errors.New("servers: server is not running")
	// ErrClosed says that the server is closed.
	ErrClosed = errors.New("servers: closed")
)

func missing(program, install, pathVariable, urlVariable string) error {
	err := fmt.Errorf("%w: %s: install it (%s), or name it by %s", ErrMissing, program, install, pathVariable)
	if urlVariable != "" {
		err = fmt.Errorf("%w, or name a running server by %s", err, urlVariable)
	}
	return err
}
