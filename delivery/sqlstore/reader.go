package sqlstore

import (
	"context"
	"database/sql"
	"sync/atomic"
	"time"
)

// reader runs transactions that only read.
type reader struct {
	db      *sql.DB
	dialect *dialect
	timeout time.Duration
	closed  atomic.Bool
}

// close makes later calls of read fail.
func (r *reader) close() { r.closed.Store(true) }

// read runs statements that only read. All of them see the same state.
func (r *reader) read(ctx context.Context, doing string, work func(querier) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.closed.Load() {
		return errClosed
	}
	limited := ctx
	if r.dialect.waitsForServer {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	return asDatabaseError(ctx, doing, asNoAnswer(limited, r.timeout, r.tryRead(limited, work)))
}

func (r *reader) tryRead(ctx context.Context, work func(querier) error) error {
	var err error
	for range maxTries {
		if err = r.readOnce(ctx, work); err == nil || causeOf(err) != connectionLost || ctx.Err() != nil {
			break
		}
	}
	return err
}

func (r *reader) readOnce(ctx context.Context, work func(querier) error) error {
	conn, err := connect(ctx, r.db, r.dialect.prepares)
	if err != nil {
		return err
	}
	err = conn.transaction(ctx, r.dialect.beginRead, work)
	if err != nil && (contextError(ctx) != nil || mayBeBroken(err)) {
		conn.discard()
	} else {
		conn.release()
	}
	return err
}
