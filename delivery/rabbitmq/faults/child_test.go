package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// childVariable makes the test program a consumer that may be killed. Its value
// is the child's job as JSON.
const childVariable = "BARID_FAULTS_CHILD"

// A point in the life of a message where a child kills itself.
type point string

const (
	nowhere     point = ""
	beforeClaim point = "before claim"
	afterClaim  point = "after claim"
	afterEffect point = "after effect"
	afterMark   point = "after mark"
	midBatch    point = "mid-batch" // half of what a retry worker has claimed is sent
)

// job is what a child is told to do.
type job struct {
	AMQP, Redis, Name string
	// Database keeps keys and records, and has the child run a retry worker, too.
	// Nil: the keys are in Redis, and there are no records.
	Database *database
	// InProcess has messages wait in the child, not in RabbitMQ.
	InProcess bool
	// Publish is how many messages the child publishes, with IDs that begin with
	// Batch.
	Publish    int
	Batch      string
	NoConsumer bool
	// Stop has the process stopped when the retry worker has sent its first batch.
	Stop         bool
	Log          string // the file that takes the effects, a line each
	Point        point
	At           int // the how manieth passing of the point is the last
	Concurrency  int
	Lease, Drain time.Duration
	Work         time.Duration // of each handler, before its effect
	// Alone has everything else come to rest before the child kills itself, so that
	// the crash is one message's.
	Alone bool
	// Hold makes handlers write their effect, and then wait until their lease is
	// lost, which they write, too.
	Hold bool
}

// The words of a child's log, in front of a message's ID.
const (
	effectLine = "effect"
	markLine   = "mark" // and the key: the effect is marked as done
	lostLine   = "lost"
	sendLine   = "send" // and the number of the attempt: a retry worker has sent it
	lateLine   = "late" // a retry worker noted something that was late
	sentLine   = "sent" // it was published
	readyLine  = "ready"
	stopLine   = "stop"
)

// childMain consumes until SIGTERM, or until it kills itself.
func childMain(text string) int {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := j.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// flow is how far a child's messages have got.
type flow struct {
	passed, effects, marks atomic.Int64
	dying                  atomic.Bool
	// beforeDeath, when set, returns when all is as it is to be found.
	beforeDeath func()
}

// pass is called when a message passes a point, and does not return from the
// last one.
func (j *job) pass(at point, f *flow) {
	if at != j.Point || f.passed.Add(1) != int64(j.At) {
		return
	}
	if j.Alone {
		f.dying.Store(true)
		between := int64(0)
		if at == afterEffect {
			between = 1
		}
		for f.effects.Load()-f.marks.Load() > between {
			<-time.After(time.Millisecond)
		}
	}
	if f.beforeDeath != nil {
		f.beforeDeath()
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it can't fail
	select {}
}

// child is a process that consumes.
type child struct {
	r       *rig
	command *exec.Cmd
	ended   chan error
}

func (r *rig) child(j job) *child {
	r.Helper()
	text, err := json.Marshal(j)
	require.NoError(r, err)
	program, err := os.Executable()
	require.NoError(r, err)
	complaints, err := os.OpenFile(j.Log+".stderr", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(r, err)
	defer complaints.Close() //nolint:errcheck // the child has its own descriptor
	c := &child{r: r, command: exec.Command(program), ended: make(chan error, 1)}
	c.command.Env = append(os.Environ(), childVariable+"="+string(text))
	c.command.Stderr = complaints
	require.NoError(r, c.command.Start())
	go func() { c.ended <- c.command.Wait() }()
	r.later(func() {
		c.command.Process.Kill() //nolint:errcheck // it may have ended
		select {
		case <-c.ended: //nolint:errcheck // how it ended was seen before
		case <-time.After(patience):
			r.Errorf("a child does not end")
		}
	})
	return c
}

func (c *child) signal(s os.Signal) { require.NoError(c.r, c.command.Process.Signal(s)) }

// killed waits until the child has killed itself.
func (c *child) killed() {
	c.r.Helper()
	err := c.wait(patience)
	var exit *exec.ExitError
	require.ErrorAs(c.r, err, &exit)
	status, _ := exit.Sys().(syscall.WaitStatus)
	require.Equal(c.r, syscall.SIGKILL, status.Signal(), "the child ended by itself: %v", err)
}

// terminate asks the child to end and returns how long that took.
func (c *child) terminate(limit time.Duration) time.Duration {
	c.r.Helper()
	begin := time.Now()
	c.signal(syscall.SIGTERM)
	require.NoError(c.r, c.wait(limit))
	return time.Since(begin)
}

func (c *child) wait(limit time.Duration) error {
	c.r.Helper()
	select {
	case err := <-c.ended:
		c.ended <- err
		return err
	case <-time.After(limit):
		require.Fail(c.r, "a child does not end within "+limit.String())
		return nil
	}
}

// deeds are what children have written down: by the word in front, how often
// each ID was there.
type deeds map[string]map[string]int

func (r *rig) read(path string) deeds {
	r.Helper()
	all := deeds{
		effectLine: {}, markLine: {}, lostLine: {}, sendLine: {}, lateLine: {}, sentLine: {}, readyLine: {}, stopLine: {},
	}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return all
	}
	require.NoError(r, err)
	defer file.Close() //nolint:errcheck // read only
	for lines := bufio.NewScanner(file); lines.Scan(); {
		word, id, _ := strings.Cut(lines.Text(), " ")
		all[word][id]++
	}
	return all
}

// total is how many lines had the word.
func (d deeds) total(word string) (n int) {
	for _, times := range d[word] {
		n += times
	}
	return n
}
