package sqlstore

import (
	"slices"
	"sync"
	"time"

	"github.com/esh3artech/barid/retry"
)

// How long PostgreSQL waits for a lock: about as long as somebody else's commit
// takes. A part of a batch that is being divided waits no longer than necessary.
const (
	lockWait      = 20 * time.Millisecond
	lockWaitParts = 2 * time.Millisecond
)

// The shortest and the longest delay between the tries of a call whose rows
// others have locked.
const (
	minLockDelay = 5 * time.Millisecond
	maxLockDelay = 500 * time.Millisecond
)

// aside is where calls wait for locks of others, so that no other call waits
// with them. They keep no connection while they wait.
type aside struct {
	// turns bounds how many batches are divided at once, in order to find the calls
	// that have to wait.
	turns chan struct{}
	// again tries those that have waited for a while. It is apart from turns, so
	// that any number of them holds up no call that need not wait.
	again *batcher[*call]
	ended sync.WaitGroup
}

func (w *writer) newAside(turns, rows int) *aside {
	again := newBatcher(1, rows, func() (func([]*call), func()) { return w.tryAgain, func() {} })
	return &aside{turns: make(chan struct{}, turns), again: again}
}

func (a *aside) close() {
	a.ended.Wait()
	a.again.close()
}

// setAside has calls executed outside the workers. The first transaction waits
// for locks as long as wait says.
func (w *writer) setAside(calls []*call, wait time.Duration) {
	calls = slices.Clone(calls) // the batch belongs to the batcher
	began := time.Now()
	w.aside.ended.Go(func() {
		w.aside.turns <- struct{}{}
		waiting := w.runParts(calls, wait)
		<-w.aside.turns
		for _, c := range waiting {
			w.aside.ended.Go(func() { w.waitForLocks(c, began) })
		}
	})
}

// runParts executes calls, and returns those that need rows which others have
// locked. It divides a batch until these are alone, and the others go on.
func (w *writer) runParts(calls []*call, wait time.Duration) (waiting []*call) {
	worker := &writeWorker{writer: w, lockWait: wait}
	defer worker.end()
	for parts := [][]*call{calls}; len(parts) > 0; worker.lockWait = lockWaitParts {
		part := dropAbandoned(parts[0])
		parts = parts[1:]
		if len(part) == 0 {
			continue
		}
		err := worker.runWithRetries(part)
		switch isLocked := causeOf(err) == locked; {
		case isLocked && len(part) > 1:
			parts = append(parts, part[:len(part)/2], part[len(part)/2:])
		case isLocked && part[0].op.ifLocked != nil:
			part[0].op = part[0].op.ifLocked
			parts = append(parts, part)
		case isLocked:
			part[0].lastLocked = err
			part[0].locked.Store(&err)
			waiting = append(waiting, part[0])
		case len(part) > 1 && err != nil && worthTryingEach(err):
			for i := range part {
				parts = append(parts, part[i:i+1])
			}
		default:
			w.answer(part, err)
		}
	}
	return waiting
}

// waitForLocks has the call tried until nobody has locked its rows, its caller
// has gone, or the writer's timeout is over.
func (w *writer) waitForLocks(c *call, began time.Time) {
	c.tried = make(chan struct{}, 1)
	for delay := minLockDelay; c.lastLocked != nil; delay = min(2*delay, maxLockDelay) {
		if waited := time.Since(began); waited >= w.timeout {
			w.answer([]*call{c}, &lockedError{waited: waited, err: c.lastLocked})
			return
		}
		if !retry.Wait(c.ctx.Done(), delay) {
			return
		}
		if w.aside.again.submit(c.ctx, c) != nil { // aside closes it after the last call that waits
			return
		}
		<-c.tried
	}
}

// tryAgain executes the calls whose delays are over. They are tried together:
// most often they have waited for the same transaction.
func (w *writer) tryAgain(batch []*call) {
	for _, c := range batch {
		c.lastLocked = nil
	}
	calls := slices.Clone(batch)
	slices.SortStableFunc(calls, byRank)
	w.runParts(calls, lockWait)
	for _, c := range batch {
		c.tried <- struct{}{}
	}
}
