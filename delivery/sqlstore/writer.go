package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

var errClosed = fmt.Errorf("%w: %w", delivery.ErrStoreDown, delivery.ErrClosed)

// maxTries is how often a transaction is tried that fails for a transient
// cause.
const maxTries = 5

// writer executes operations. Those that come at the same time share a
// transaction.
type writer struct {
	db      *sql.DB
	dialect *dialect
	timeout time.Duration
	fault   *lastFault
	batches *batcher[*call]
	aside   *aside
}

func newWriter(db *sql.DB, d *dialect, config Config, fault *lastFault) *writer {
	w := &writer{db: db, dialect: d, timeout: config.Timeout, fault: fault}
	workers := config.InFlight
	if d.oneWriter {
		workers = 1
	}
	w.aside = w.newAside(workers, config.MaxBatch)
	w.batches = newBatcher(workers, config.MaxBatch, func() (func([]*call), func()) {
		worker := &writeWorker{writer: w, lockWait: lockWait}
		return worker.runBatch, worker.end
	})
	return w
}

// execute executes op with args, and returns when its transaction is committed
// or has failed, or when ctx has ended. In the last case op may be executed
// later, so the caller must not touch args again.
func (w *writer) execute(ctx context.Context, op *operation, amount size, args any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{ctx: ctx, op: op, args: args, amount: amount, done: make(chan error, 1)}
	err := w.batches.await(ctx, c, c.done)
	fault := w.fault.Err()
	if locked := c.locked.Load(); locked != nil {
		fault = *locked
	}
	return withFault(ctx, op.name, err, fault)
}

func (w *writer) close() {
	w.batches.close()
	w.aside.close()
}

// writeWorker is one worker of the writer. It keeps its connection where the
// dialect allows that.
type writeWorker struct {
	*writer
	lockWait time.Duration
	conn     *connection
}

func (w *writeWorker) end() {
	if w.conn != nil {
		w.conn.release()
		w.conn = nil
	}
}

// runBatch runs the calls in one transaction. If that fails because of one of
// them, each gets a transaction of its own. It does not wait for locks of others.
func (w *writeWorker) runBatch(calls []*call) {
	calls, alone := splitAlone(dropAbandoned(calls))
	for i := range alone {
		if w.dialect.oneWriter {
			w.answer(alone[i:i+1], w.runWithRetries(alone[i:i+1]))
		} else {
			w.setAside(alone[i:i+1], lockWait)
		}
	}
	if len(calls) == 0 {
		return
	}
	slices.SortStableFunc(calls, byRank)
	err := w.runWithRetries(calls)
	if err == nil || len(calls) == 1 || !worthTryingEach(err) {
		w.answerOrSetAside(calls, err)
		return
	}
	for i, c := range calls {
		if c.ctx.Err() != nil {
			continue
		}
		err := w.runWithRetries(calls[i : i+1])
		if err != nil && !worthTryingEach(err) && causeOf(err) != locked {
			w.answer(calls[i:], err)
			return
		}
		w.answerOrSetAside(calls[i:i+1], err)
	}
}

// answerOrSetAside sets calls aside when others have locked rows that they need.
// SQLite's lock stops all writers, so there the calls have been tried enough.
func (w *writeWorker) answerOrSetAside(calls []*call, err error) {
	if causeOf(err) == locked && !w.dialect.oneWriter {
		w.setAside(calls, lockWaitParts)
	} else {
		w.answer(calls, err)
	}
}

// dropAbandoned leaves out the calls whose callers have gone.
func dropAbandoned(calls []*call) []*call {
	return slices.DeleteFunc(calls, func(c *call) bool { return c.ctx.Err() != nil })
}

// splitAlone takes the calls that need a transaction of their own out of a
// batch.
func splitAlone(calls []*call) (together, alone []*call) {
	first := slices.IndexFunc(calls, func(c *call) bool { return c.op.alone })
	if first < 0 {
		return calls, nil
	}
	for _, c := range calls {
		if c.op.alone {
			alone = append(alone, c)
		} else {
			together = append(together, c)
		}
	}
	return together, alone
}

// worthTryingEach returns whether calls that failed together may succeed one by
// one. What may have been committed is not tried again.
func worthTryingEach(err error) bool {
	cause := causeOf(err)
	return cause == refusedValues || cause == unknown && !errors.As(err, new(*commitError))
}

// answer tells the callers how their calls went.
func (w *writer) answer(calls []*call, err error) {
	if err == nil {
		for op, args := range byOperation(calls) {
			if op.committed != nil {
				op.committed(args)
			}
		}
	}
	for _, c := range calls {
		if err == nil {
			c.done <- nil
		} else {
			c.done <- &DatabaseError{Doing: c.op.name, Err: err}
		}
	}
}

func byRank(a, b *call) int { return a.op.rank - b.op.rank }

// byOperation groups calls, which are sorted by operation.
func byOperation(calls []*call) func(yield func(*operation, []any) bool) {
	return func(yield func(*operation, []any) bool) {
		for len(calls) > 0 {
			op := calls[0].op
			args := make([]any, 0, len(calls))
			for len(calls) > 0 && calls[0].op == op {
				args = append(args, calls[0].args)
				calls = calls[1:]
			}
			if !yield(op, args) {
				return
			}
		}
	}
}

// runWithRetries runs the calls in a transaction, and tries again when it fails
// for a transient cause, as long as one of the callers waits.
func (w *writeWorker) runWithRetries(calls []*call) error {
	var err error
	for n := range maxTries {
		if n > 0 {
			retry.Wait(nil, time.Millisecond<<(2*n))
		}
		err = w.runOnce(calls)
		w.fault.note(w.dialect, err)
		if err == nil {
			return nil
		}
		if !w.worthRetrying(err) || !slices.ContainsFunc(calls, func(c *call) bool { return c.ctx.Err() == nil }) {
			return err
		}
	}
	return err
}

func (w *writeWorker) worthRetrying(err error) bool {
	switch causeOf(err) {
	case transient:
		return true
	case locked:
		return w.dialect.oneWriter
	case connectionLost:
		return !errors.As(err, new(*commitError))
	default:
		return false
	}
}

// runOnce runs the calls in a transaction.
func (w *writeWorker) runOnce(calls []*call) error {
	ctx := context.Background()
	if w.dialect.waitsForServer {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	if w.conn == nil {
		conn, err := connect(ctx, w.db, w.dialect.prepares)
		if err != nil {
			return asNoAnswer(ctx, w.timeout, err)
		}
		w.conn = conn
	}
	err := w.conn.transaction(ctx, w.dialect.begin(w.lockWait), func(q querier) error {
		for op, args := range byOperation(calls) {
			if err := op.run(ctx, q, args); err != nil {
				return err
			}
		}
		return nil
	})
	err = asNoAnswer(ctx, w.timeout, err)
	switch {
	case err != nil && mayBeBroken(err):
		w.conn.discard()
		w.conn = nil
	case !w.dialect.oneWriter:
		w.end()
	}
	return err
}

// mayBeBroken returns whether err leaves the connection in an unknown state, or
// shows that it leads to the wrong server: after a switchover, a new connection
// may find the one that takes writes.
func mayBeBroken(err error) bool {
	cause := causeOf(err)
	return cause == connectionLost || cause == noAnswer || cause == readOnly || cause == unknown
}
