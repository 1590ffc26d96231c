package faults

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

const (
	// rowLimit bounds a row, so that one that hangs fails.
	rowLimit = 4 * time.Minute
	// patience is how long something may take on a busy machine.
	patience = time.Minute
	// grace is how much later than its deadline a call may return, on a machine
	// whose cores are taken.
	grace = 15 * time.Second
)

// rowTest is the test of one row, with the servers and the ledger that the row works
// with. It keeps the failures of its testing.T for the table.
type rowTest struct {
	*testing.T
	row    row
	ctx    context.Context // ends with the row's time
	cancel context.CancelFunc
	broker *servers.RabbitMQ
	redis  *servers.Redis
	sql    *servers.Postgres // nil unless the row asks for it
	ledger deliverytest.Ledger
	target ledger // where the pipeline writes, by default the ledger
	bound  int
	notes  []string

	cleanups    []func()
	goroutines  int
	descriptors int

	mu     sync.Mutex
	failed []string
}

// ledger is told what happens to messages.
type ledger interface {
	Sent(id string)
	Effect(id string)
}

func newRowTest(t *testing.T, row row) *rowTest {
	t.Helper()
	r := &rowTest{T: t, row: row, bound: row.bound, broker: shared.RabbitMQ(t), redis: shared.Redis(t)}
	r.target = &r.ledger
	ctx, cancel := context.WithTimeout(context.Background(), rowLimit+flags.soak)
	r.ctx = ctx
	// An earlier row that failed may have left them down.
	require.NoError(t, r.broker.Start(ctx))
	require.NoError(t, r.redis.Start(ctx))
	if row.postgres {
		r.sql = shared.Postgres(t)
		require.NoError(t, r.sql.Start(ctx))
	}
	r.goroutines, r.descriptors = ownGoroutines(), descriptors()
	r.cancel = cancel
	r.atEnd(cancel)
	return r
}

// Errorf keeps a failure of the row for the table.
func (r *rowTest) Errorf(format string, args ...any) {
	r.Helper()
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	r.mu.Lock()
	r.failed = append(r.failed, brief(text))
	r.mu.Unlock()
	r.T.Errorf("%s", text)
}

// brief is the message in a report of testify's.
func brief(text string) string {
	var parts []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, label := range []string{"Error:", "Messages:"} {
			if rest, found := strings.CutPrefix(line, label); found {
				parts = append(parts, strings.TrimSpace(rest))
			}
		}
	}
	if parts == nil {
		return text
	}
	slices.Reverse(parts) // what it was about comes last there
	return strings.Join(parts, ": ")
}

func (r *rowTest) failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failed)
}

// note adds to what the Markdown table says of the row.
func (r *rowTest) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.notes = append(r.notes, text)
	r.Log(text)
}

// atEnd does something at the row's end. What was added last is done first.
func (r *rowTest) atEnd(do func()) { r.cleanups = append(r.cleanups, do) }

func (r *rowTest) cleanUp() {
	for _, do := range slices.Backward(r.cleanups) {
		do()
	}
	r.cleanups = nil
}

// assertNoLeaks waits until goroutines and descriptors are back where they were.
func (r *rowTest) assertNoLeaks() {
	back := func() bool {
		return (runtime.NumGoroutine() <= r.goroutines || ownGoroutines() <= r.goroutines) && descriptors() <= r.descriptors
	}
	deadline := time.Now().Add(patience)
	for !back() && time.Now().Before(deadline) {
		<-time.After(20 * time.Millisecond) // nothing tells when they are gone
	}
	if back() {
		return
	}
	r.Errorf("leak: %d goroutines, %d before; %d descriptors, %d before", ownGoroutines(), r.goroutines, descriptors(), r.descriptors)
	r.Logf("%s", stacks())
}

// ownGoroutines counts goroutines except those of toxiproxy's toxics: one of them
// stays for each connection that ended while it was stalled.
func ownGoroutines() int {
	count := 0
	for stack := range strings.SplitSeq(stacks(), "\n\n") {
		if !strings.Contains(stack, "toxiproxy/v2/toxics.") {
			count++
		}
	}
	return count
}

func stacks() string {
	text := make([]byte, 4<<20)
	return string(text[:runtime.Stack(text, true)])
}

func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries) - 1 // the directory itself
}

// wait lets time pass. It is for the duration of a fault, not for a guess at how long
// something may take.
func (r *rowTest) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
		require.NoError(r, r.ctx.Err(), "the row takes too long")
	}
}

// eventually fails the row when ok does not become true in time.
func (r *rowTest) eventually(ok func() bool, otherwise string) {
	r.Helper()
	r.within(patience, ok, otherwise)
}

func (r *rowTest) within(limit time.Duration, ok func() bool, otherwise string) {
	r.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) || r.ctx.Err() != nil {
			require.Fail(r, "not within "+limit.String(), otherwise)
		}
		r.wait(10 * time.Millisecond)
	}
}

// ctl runs rabbitmqctl.
func (r *rowTest) ctl(args ...string) string {
	r.Helper()
	out, err := r.broker.Ctl(r.ctx, args...)
	require.NoError(r, err)
	return out
}

// setBroker changes a setting of the running broker until the row's end.
func (r *rowTest) setBroker(setting, value, back string) {
	r.Helper()
	set := func(value string) error {
		_, err := r.broker.Ctl(context.WithoutCancel(r.ctx), "eval", "application:set_env(rabbit, "+setting+", "+value+").")
		return err
	}
	require.NoError(r, set(value))
	r.atEnd(func() { assert.NoError(r, set(back)) })
}
