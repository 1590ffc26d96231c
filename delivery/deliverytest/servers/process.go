package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

const (
	// stopGrace is how long a server may take to end when asked to.
	stopGrace = 2 * time.Minute
	// pollEvery is how often a starting server is asked whether it is ready.
	pollEvery = 25 * time.Millisecond
	// tailBytes is how much of a log goes into an error or a test's output.
	tailBytes = 4 << 10
)

// process is a program that can be started again and again. Its methods may be
// called by any number of goroutines, and exclude each other.
type process struct {
	name string
	path string
	args []string
	env  []string
	dir  string
	log  string // file that takes stdout and stderr of every run
	// ready asks the process with this ID whether it is ready.
	ready func(ctx context.Context, pid int) error
	// unprivileged runs the program as another user if this process is root's.
	unprivileged bool
	// end asks the program to end. Default terminate.
	end func(*os.Process) error

	mu     sync.Mutex
	run    *run
	closed bool
}

// run is one run of a process.
type run struct {
	process *os.Process
	ended   chan struct{} // closed when the process has ended
}

func (r *run) alive() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// start starts the process, unless it runs, and waits until it is ready.
func (p *process) start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if p.run.alive() {
		return nil
	}
	run, err := p.launch()
	if err != nil {
		return fmt.Errorf("servers: starting %s: %w", p.name, err)
	}
	p.run = run
	if err := p.waitReady(ctx, run); err != nil {
		_ = killGroup(run.process)
		<-run.ended
		return err
	}
	return nil
}

// launch starts the program, and a goroutine that waits for its end. The kernel
// ties the program to the thread that started it, so the goroutine keeps its
// thread as long as the program runs.
func (p *process) launch() (*run, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()                          //nolint:errcheck // the program has its own descriptor
	command := exec.Command(p.path, p.args...) //nolint:noctx // it runs longer than the call that starts it
	command.Env = p.env
	command.Dir = p.dir
	command.Stdout, command.Stderr = log, log
	if command.SysProcAttr, err = attributesOf(p.unprivileged); err != nil {
		return nil, err
	}
	started := make(chan error)
	ended := make(chan struct{})
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
	if err := <-started; err != nil {
		return nil, err
	}
	return &run{process: command.Process, ended: ended}, nil
}

func (p *process) waitReady(ctx context.Context, run *run) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		if last = p.ready(ctx, run.process.Pid); last == nil {
			return nil
		}
		select {
		case <-run.ended:
			return fmt.Errorf("%w: %s ended by itself; its log ends with:\n%s", ErrNotReady, p.name, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%w: %s: %w (last answer: %w); its log ends with:\n%s",
				ErrNotReady, p.name, context.Cause(ctx), last, p.tail())
		case <-tick.C:
		}
	}
}

// stop asks the process to end, even when it is paused, and waits for it. A
// process that takes too long is killed, which is an error.
func (p *process) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.run.alive() {
		return nil
	}
	end := p.end
	if end == nil {
		end = terminate
	}
	if err := errors.Join(resume(p.run.process), end(p.run.process)); err != nil && p.run.alive() {
		_ = killGroup(p.run.process)
		<-p.run.ended
		return fmt.Errorf("servers: stopping %s: %w", p.name, err)
	}
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	select {
	case <-p.run.ended:
		return nil
	case <-late.C:
		_ = killGroup(p.run.process)
		<-p.run.ended
		return fmt.Errorf("servers: %s did not end within %s and was killed", p.name, stopGrace)
	}
}

// kill ends the process with all processes that it started, at once.
func (p *process) kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.run.alive() {
		return nil
	}
	if err := killGroup(p.run.process); err != nil && p.run.alive() {
		return fmt.Errorf("servers: killing %s: %w", p.name, err)
	}
	<-p.run.ended
	return nil
}

// close kills the process for good.
func (p *process) close() error {
	err := p.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return err
}

// signal calls act for the running process.
func (p *process) signal(act func(*os.Process) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.run.alive() {
		return fmt.Errorf("%w: %s", ErrNotRunning, p.name)
	}
	return act(p.run.process)
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run.alive()
}

// pid is the ID of the last run, or 0 before the first.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return 0
	}
	return p.run.process.Pid
}

// tail is the end of the log, from the start of a line.
func (p *process) tail() string {
	log, err := os.Open(p.log)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	defer log.Close() //nolint:errcheck // read only
	cut := false
	if info, err := log.Stat(); err == nil && info.Size() > tailBytes {
		_, err = log.Seek(-tailBytes, io.SeekEnd)
		cut = err == nil
	}
	text, err := io.ReadAll(io.LimitReader(log, tailBytes))
	if err != nil {
		return "(" + err.Error() + ")"
	}
	if cut {
		if _, rest, found := bytes.Cut(text, []byte("\n")); found {
			text = rest
		}
	}
	return string(text)
}
