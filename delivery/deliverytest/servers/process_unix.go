//go:build unix

package servers

import (
	"errors"
	"os"
	"syscall"
)

// A server leads a process group of its own, so that signals reach what it
// started too, and a Ctrl-C in the terminal does not end it before its test.

func killGroup(process *os.Process) error { return signalGroup(process, syscall.SIGKILL) }
func pause(process *os.Process) error     { return signalGroup(process, syscall.SIGSTOP) }
func resume(process *os.Process) error    { return signalGroup(process, syscall.SIGCONT) }

// terminate goes to the leader alone: it ends its children in its own order.
func terminate(process *os.Process) error { return process.Signal(syscall.SIGTERM) }

func signalGroup(process *os.Process, signal syscall.Signal) error {
	err := syscall.Kill(-process.Pid, signal)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
