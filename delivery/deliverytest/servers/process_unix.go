//go:build unix

package servers

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// A server leads a process group of its own. So signals reach the processes that
// it started, and a Ctrl-C in the terminal does not end it before its test.
// PostgreSQL's processes have groups of their own, and are signalled one by one.

func pause(process *os.Process) error  { return signalGroup(process, syscall.SIGSTOP) }
func resume(process *os.Process) error { return signalGroup(process, syscall.SIGCONT) }

// killGroup stops the server first, so that it starts no process while they are
// looked up. It waits for those that have a group of their own, because their
// parent can't wait for them any more, and the server can't be started again
// while one runs.
func killGroup(process *os.Process) error {
	_ = pause(process)
	detached := children(process.Pid)
	err := signalGroup(process, syscall.SIGKILL)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for patience := time.Now().Add(stopGrace); slices.ContainsFunc(detached, alive) && time.Now().Before(patience); {
		<-tick.C
	}
	return err
}

// terminate asks the leader alone, which ends its children in its own order. So
// does interrupt.
func terminate(process *os.Process) error { return process.Signal(syscall.SIGTERM) }
func interrupt(process *os.Process) error { return process.Signal(syscall.SIGINT) }

func signalGroup(process *os.Process, signal syscall.Signal) error {
	detached := children(process.Pid)
	err := syscall.Kill(-process.Pid, signal)
	for _, pid := range detached {
		_ = syscall.Kill(pid, signal)
	}
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// attributesOf are the attributes of a new process. If this process is root's,
// an unprivileged one runs as the user of unprivilegedUser.
func attributesOf(unprivileged bool) (*syscall.SysProcAttr, error) {
	attributes := attributes()
	if !unprivileged || os.Geteuid() != 0 {
		return attributes, nil
	}
	uid, gid, err := unprivilegedUser()
	if err != nil {
		return nil, err
	}
	attributes.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return attributes, nil
}

// unprivilegedUser is the user postgres, or else nobody.
func unprivilegedUser() (uid, gid uint32, err error) {
	account, err := user.Lookup("postgres")
	if err != nil {
		if account, err = user.Lookup("nobody"); err != nil {
			return 0, 0, fmt.Errorf("servers: no user to run as instead of root: %w", err)
		}
	}
	u, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	g, err := strconv.ParseUint(account.Gid, 10, 32)
	return uint32(u), uint32(g), err
}

// chownToServerUser gives the folder to the user that an unprivileged process
// runs as.
func chownToServerUser(folder string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := unprivilegedUser()
	if err != nil {
		return err
	}
	return os.Chown(folder, int(uid), int(gid))
}
