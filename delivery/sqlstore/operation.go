package sqlstore

import (
	"context"
	"sync/atomic"
)

// operation is a kind of write. Its calls by many goroutines are executed
// together in one transaction. Several operations in a transaction run by rank.
// Each must lock its rows in the order of their keys, and no two operations of
// different ranks may lock the same rows first, so that transactions never
// deadlock.
type operation struct {
	name string
	rank int
	// alone gives each call a transaction of its own, because it locks rows in
	// another order. No worker waits for it, unless the database has one writer.
	alone bool
	// ifLocked, unless it is nil, is executed instead, with the same arguments, when
	// others have locked rows that the operation needs.
	ifLocked *operation
	// run executes the calls, and leaves their results in their arguments. It may
	// run several times: the last run counts. Its error fails the transaction.
	run func(ctx context.Context, q querier, args []any) error
	// committed is called when the calls are durable, before their callers are told.
	committed func(args []any)
}

// newOperation is an operation whose calls have arguments of type A. committed
// may be nil.
func newOperation[A any](name string, rank int, run func(context.Context, querier, []A) error, committed func([]A)) *operation {
	typed := func(args []any) []A {
		all := make([]A, len(args))
		for i, arg := range args {
			all[i] = arg.(A) // execute was given this operation with an A
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
	ctx    context.Context // the caller's, to drop calls that nobody waits for
	op     *operation
	args   any
	amount size
	done   chan error

	// Of a call that waits for locks of others: the failure of the last try, if that
	// was because of them, and what tells that there was another try.
	lastLocked error
	tried      chan struct{}
	// locked is such a failure, for a caller that leaves.
	locked atomic.Pointer[error]
}

func (c *call) size() size { return c.amount }
