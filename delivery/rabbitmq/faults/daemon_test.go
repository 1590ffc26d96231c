package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/stretchr/testify/require"
)

// daemon is a program in a node's namespace. It can be started again.
type daemon struct {
	node    *node
	name    string
	program string
	process *os.Process
	ended   chan struct{}
}

func (n *node) daemon(name, program string) *daemon {
	return &daemon{node: n, name: name, program: program}
}

// start starts the program, in a goroutine that keeps its thread for as long as the
// program lives: Pdeathsig is sent when the thread ends.
func (d *daemon) start() {
	r := d.node.r
	r.Helper()
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(r, err)
	defer log.Close() //nolint:errcheck // the program has its own descriptor
	command := exec.Command("ip", "netns", "exec", d.node.namespace, d.program)
	command.Env, command.Dir, command.Stdout, command.Stderr = d.node.env, d.node.dir, log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait()
			close(ended)
		}
	}()
	require.NoError(r, <-started)
	d.process, d.ended = command.Process, ended
}

// kill ends the program at once, with all that it started.
func (d *daemon) kill() {
	if d.process == nil {
		return
	}
	syscall.Kill(-d.process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
	<-d.ended
	d.process = nil
}

func (d *daemon) log() string { return filepath.Join(d.node.dir, d.name+".log") }

func (d *daemon) tail() string {
	text, _ := os.ReadFile(d.log())
	return string(text[max(0, len(text)-3000):])
}
