package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

var errClosed = fmt.Errorf("%w: %w", delivery.ErrStoreDown, delivery.ErrClosed)

// tries is how often a transaction is tried that fails for a passing cause.
const tries = 5

// operation is a kind of write, whose calls by many goroutines are carried out
// together in one transaction. In a transaction with several operations they
// run by rank: each must take its row locks in the order of keys, and no two
// operations of different ranks the same rows first, so that transactions never
// wait for each other in a circle.
type operation struct {
	name string
	rank int
	// alone gives each call a transaction of its own, for what locks rows in an
	// order that does not go with the others.
	alone bool
	// run carries the calls out, and leaves their results in their arguments. It
	// may run several times, the last of which counts. Its error fails the
	// transaction.
	run func(ctx context.Context, q querier, args []any) error
	// committed is told of the calls once they are durable, before the callers are.
	committed func(args []any)
}

// newOperation is an operation whose calls' arguments are of type A. committed
// may be nil.
func newOperation[A any](name string, rank int, run func(context.Context, querier, []A) error, committed func([]A)) *operation {
	typed := func(args []any) []A {
		all := make([]A, len(args))
		for i, arg := range args {
			all[i] = arg.(A) // perform was given this operation with an A
		}
		return all
	}
	op := &operation{name: name, rank: rank, run: func(ctx context.Context, q querier, args []any) error {
		return run(ctx, q, typed(args))
	}}
	if committed != nil {
		op.committed = func(args []any) { committed(typed(args)) }
	}
	return op
}

// call is one caller's operation on its way through the writer.
type call struct {
	ctx  context.Context // the caller's, to drop what nobody waits for
	op   *operation
	args any
	many size
	done chan error
}

func (c *call) size() size { return c.many }

// writer carries out operations, those that come at the same time in one
// transaction.
type writer struct {
	db      *sql.DB
	dialect *dialect
	timeout time.Duration
	batches *batcher[*call]
}

func newWriter(db *sql.DB, d *dialect, config Config) *writer {
	w := &writer{db: db, dialect: d, timeout: config.Timeout}
	workers := config.InFlight
	if d.oneWriter {
		workers = 1
	}
	w.batches = newBatcher(workers, config.MaxBatch, func() (func([]*call), func()) {
		lane := &lane{writer: w}
		return lane.carryOut, lane.end
	})
	return w
}

// perform has op carried out with args, which are so many, and returns
// when its transaction is committed, or has failed, or ctx has ended; then op
// may be carried out all the same, so that args must not be touched again.
func (w *writer) perform(ctx context.Context, op *operation, many size, args any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{ctx: ctx, op: op, args: args, many: many, done: make(chan error, 1)}
	if err := w.batches.submit(ctx, c); err != nil {
		return err
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *writer) close() { w.batches.close() }

// lane is one worker of the writer, with its connection where the dialect lets
// it keep one.
type lane struct {
	*writer
	conn *connection
}

func (l *lane) end() {
	if l.conn != nil {
		l.conn.release()
		l.conn = nil
	}
}

// carryOut runs the calls in one transaction. If that fails for the sake of one
// of them, each gets a transaction of its own.
func (l *lane) carryOut(calls []*call) {
	calls = slices.DeleteFunc(calls, func(c *call) bool {
		if err := c.ctx.Err(); err != nil {
			c.done <- err
			return true
		}
		return false
	})
	calls, alone := apart(calls)
	for i := range alone {
		l.finish(alone[i:i+1], l.try(alone[i:i+1]))
	}
	if len(calls) == 0 {
		return
	}
	slices.SortStableFunc(calls, func(a, b *call) int { return a.op.rank - b.op.rank })
	err := l.try(calls)
	if err == nil || len(calls) == 1 || !mayBeOnes(err) {
		l.finish(calls, err)
		return
	}
	for i, c := range calls {
		if ended := c.ctx.Err(); ended != nil {
			c.done <- ended
			continue
		}
		err := l.try(calls[i : i+1])
		if err != nil && !mayBeOnes(err) {
			l.finish(calls[i:], err)
			return
		}
		l.finish(calls[i:i+1], err)
	}
}

// apart takes those calls that need a transaction of their own out of a batch.
func apart(calls []*call) (together, alone []*call) {
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

// mayBeOnes says whether what failed for all may do for each. What may have been
// committed is not done again.
func mayBeOnes(err error) bool {
	cause := causeOf(err)
	return cause == statement || cause == unknown && !errors.As(err, new(*commitError))
}

func (l *lane) finish(calls []*call, err error) {
	if err == nil {
		for op, args := range groups(calls) {
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

// groups are the calls by operation, which are together already.
func groups(calls []*call) func(yield func(*operation, []any) bool) {
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

// try runs the calls in a transaction, again if that fails for a passing cause.
func (l *lane) try(calls []*call) error {
	var err error
	for n := range tries {
		if n > 0 {
			pause := time.NewTimer(time.Millisecond << (2 * n))
			<-pause.C
		}
		if err = l.once(calls); err == nil {
			return nil
		}
		cause := causeOf(err)
		var atCommit *commitError
		if cause != passing && (cause != gone || errors.As(err, &atCommit)) {
			return err
		}
	}
	return err
}

func (l *lane) once(calls []*call) error {
	ctx := context.Background()
	if l.dialect.waitsForServer {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	if l.conn == nil {
		conn, err := connect(ctx, l.db, l.dialect.prepares)
		if err != nil {
			return unanswered(ctx, l.timeout, err)
		}
		l.conn = conn
	}
	err := l.conn.transaction(ctx, l.dialect.beginWrite, func(q querier) error {
		for op, args := range groups(calls) {
			if err := op.run(ctx, q, args); err != nil {
				return err
			}
		}
		return nil
	})
	err = unanswered(ctx, l.timeout, err)
	switch {
	case err != nil && mayBeBroken(err):
		l.conn.discard()
		l.conn = nil
	case !l.dialect.oneWriter:
		l.end()
	}
	return err
}

// mayBeBroken says whether err leaves the connection in a state that is not
// known.
func mayBeBroken(err error) bool {
	cause := causeOf(err)
	return cause == gone || cause == silent || cause == unknown
}
