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

// childVariable is the environment variable that makes the test program a child: a
// process that may be killed. Its value is the child's config as JSON.
const childVariable = "BARID_FAULTS_CHILD"

// crashPoint is a point in the life of a message where a child kills itself.
type crashPoint string

const (
	nowhere     crashPoint = ""
	beforeClaim crashPoint = "before claim"
	afterClaim  crashPoint = "after claim"
	afterEffect crashPoint = "after effect"
	afterMark   crashPoint = "after mark"
	midBatch    crashPoint = "mid-batch" // half of what a retry worker has claimed is sent
)

// childConfig is what a child is to do.
type childConfig struct {
	AMQP, Redis, Name string
	// Database keeps keys and records, and the child runs a retry worker. With nil
	// the keys are in Redis, and there are no records.
	Database *database
	// InProcess has messages wait in the child, not in RabbitMQ.
	InProcess bool
	// Publish is how many messages the child publishes, with IDs that begin with
	// Batch.
	Publish    int
	Batch      string
	NoConsumer bool
	// Stop stops the process (SIGSTOP) when the retry worker has sent its first batch.
	Stop         bool
	LogFile      string // the file that effects are written to, a line each
	Point        crashPoint
	At           int // the child dies when the point is reached for the At-th time
	Concurrency  int
	Lease, Drain time.Duration
	Work         time.Duration // of each handler, before its effect
	// Alone has the child wait, before it kills itself, until no other message is
	// between effect and mark.
	Alone bool
	// Poison is the ID of a message whose handler kills the child. The child's dead
	// letters are the transport's.
	Poison string
	// Hold makes handlers write their effect, wait until their lease is lost, and
	// write that as well.
	Hold bool
}

// The words in a child's log, each in front of a message's ID.
const (
	effectLine = "effect"
	markLine   = "mark" // and the key: the effect is marked as done
	lostLine   = "lost"
	sendLine   = "send" // and the number of the attempt: a retry worker has sent it
	lateLine   = "late" // a retry worker's update was late
	sentLine   = "sent" // it was published
	readyLine  = "ready"
	stopLine   = "stop"
)

// childMain consumes until SIGTERM, or until it kills itself.
func childMain(text string) int {
	var config childConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := config.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// childProgress is how far a child's messages have got.
type childProgress struct {
	passed, effects, marks atomic.Int64
	dying                  atomic.Bool
	// beforeKill, if set, waits until the state is as the next process is to find it.
	beforeKill func()
}

// reach is called when a message reaches a point. At the point where the child is to
// die, it does not return.
func (c *childConfig) reach(at crashPoint, progress *childProgress) {
	if at != c.Point || progress.passed.Add(1) != int64(c.At) {
		return
	}
	if c.Alone {
		progress.dying.Store(true)
		between := int64(0)
		if at == afterEffect {
			between = 1
		}
		for progress.effects.Load()-progress.marks.Load() > between {
			<-time.After(time.Millisecond)
		}
	}
	if progress.beforeKill != nil {
		progress.beforeKill()
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it can't fail
	select {}
}

// child is a child process.
type child struct {
	r       *rowTest
	command *exec.Cmd
	ended   chan error
}

func (r *rowTest) child(config childConfig) *child {
	r.Helper()
	text, err := json.Marshal(config)
	require.NoError(r, err)
	program, err := os.Executable()
	require.NoError(r, err)
	stderr, err := os.OpenFile(config.LogFile+".stderr", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(r, err)
	defer stderr.Close() //nolint:errcheck // the child has its own descriptor
	c := &child{r: r, command: exec.Command(program), ended: make(chan error, 1)}
	c.command.Env = append(os.Environ(), childVariable+"="+string(text))
	c.command.Stderr = stderr
	require.NoError(r, c.command.Start())
	go func() { c.ended <- c.command.Wait() }()
	r.atEnd(func() {
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

// hasEnded says whether the child has ended, in whichever way.
func (c *child) hasEnded() bool {
	select {
	case err := <-c.ended:
		c.ended <- err
		return true
	default:
		return false
	}
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

// childLog is what children have written: by the word in front, how often each ID
// was there.
type childLog map[string]map[string]int

func (r *rowTest) readChildLog(path string) childLog {
	r.Helper()
	all := childLog{
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

// total is how many lines have the word.
func (d childLog) total(word string) (n int) {
	for _, times := range d[word] {
		n += times
	}
	return n
}
