package sqlstore

import (
	"context"
	"database/sql"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/retry/lastfault"
)

// reader runs transactions that only read.
type reader struct {
	db      *sql.DB
	dialect *dialect
	timeout time.Duration
	fault   *lastFault
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
	return asDatabaseError(ctx, doing, r.tryRead(ctx, limited, work), r.fault.Err())
}

// tryRead runs work within limited, which is ctx with the store's timeout.
func (r *reader) tryRead(ctx, limited context.Context, work func(querier) error) error {
	var err error
	for range maxTries {
		if err = r.readOnce(limited, work); err == nil || causeOf(err) != connectionLost || lastfault.Ended(limited) != nil {
			break
		}
		r.fault.note(r.dialect, err)
	}
	if err != nil && lastfault.Ended(ctx) != nil {
		return err // which tells nothing of the database
	}
	err = asNoAnswer(limited, r.timeout, err)
	r.fault.note(r.dialect, err)
	return err
}

func (r *reader) readOnce(ctx context.Context, work func(querier) error) error {
	conn, err := connect(ctx, r.db, r.dialect.prepares)
	if err != nil {
		return err
	}
	err = conn.transaction(ctx, r.dialect.beginRead, work)
	if err != nil && (lastfault.Ended(ctx) != nil || mayBeBroken(err)) {
		conn.discard()
	} else {
		conn.release()
	}
	return err
}
