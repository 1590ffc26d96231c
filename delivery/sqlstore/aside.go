package sqlstore

import (
	"sync"
	"time"
)

// How long PostgreSQL waits for a lock. A worker, and a call alone, wait about
// as long as somebody else's commit takes. A part of a batch that is being split
// waits no longer than necessary.
const (
	lockWait      = 20 * time.Millisecond
	lockWaitSplit = 2 * time.Millisecond
)

// The shortest and the longest delay between the tries of a call whose rows
// others have locked.
const (
	minLockDelay = 5 * time.Millisecond
	maxLockDelay = 500 * time.Millisecond
)

// aside is where calls wait for locks of others, so that no other call waits
// with them. They keep no connection while they wait. As many are tried at once
// as the writer has workers.
type aside struct {
	turns chan struct{}
	ended sync.WaitGroup
}

func newAside(turns int) *aside { return &aside{turns: make(chan struct{}, turns)} }

// setAside has calls executed outside the workers.
func (w *writer) setAside(calls []*call) {
	calls = append([]*call(nil), calls...) // the batch belongs to the batcher
	w.aside.ended.Go(func() { w.runAside(calls, time.Now()) })
}

// runAside executes calls as soon as the rows that they need are not locked. A
// batch is split until those that have to wait are alone. These are tried until
// their callers have gone, or the writer's timeout is over.
func (w *writer) runAside(calls []*call, began time.Time) {
	for delay := minLockDelay; ; delay = min(2*delay, maxLockDelay) {
		var err error
		calls, err = w.runInTurn(calls)
		switch {
		case len(calls) > 1 && causeOf(err) == locked:
			w.setAside(calls[:len(calls)/2])
			w.setAside(calls[len(calls)/2:])
			return
		case len(calls) > 1 && err != nil && worthTryingEach(err):
			for i := range calls {
				w.setAside(calls[i : i+1])
			}
			return
		case causeOf(err) != locked:
			w.answer(calls, err)
			return
		}
		c := calls[0]
		if c.op.ifLocked != nil {
			c.op = c.op.ifLocked
			continue
		}
		if waited := time.Since(began); waited >= w.timeout {
			w.answer(calls, &lockedError{waited: waited, err: err})
			return
		}
		again := time.NewTimer(delay)
		select {
		case <-again.C:
		case <-c.ctx.Done():
			again.Stop()
		}
	}
}

// runInTurn executes those calls whose callers still wait when it is their turn,
// in one transaction.
func (w *writer) runInTurn(calls []*call) ([]*call, error) {
	w.aside.turns <- struct{}{}
	defer func() { <-w.aside.turns }()
	if calls = dropAbandoned(calls); len(calls) == 0 {
		return nil, nil
	}
	worker := &writeWorker{writer: w, lockWait: lockWaitSplit}
	if len(calls) == 1 {
		worker.lockWait = lockWait
	}
	defer worker.end()
	return calls, worker.runWithRetries(calls)
}
