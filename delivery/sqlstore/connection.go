package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// querier runs statements: a *sql.DB, *sql.Tx, *sql.Conn or *connection.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// connection is a connection that is taken out of the pool for a while. It
// keeps prepared statements where the driver does not.
type connection struct {
	*sql.Conn
	prepared map[string]*sql.Stmt // nil when the driver keeps them
}

func connect(ctx context.Context, db *sql.DB, prepare bool) (*connection, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn}
	if prepare {
		c.prepared = make(map[string]*sql.Stmt)
	}
	return c, nil
}

// ExecContext runs query, prepared if the connection keeps statements.
func (c *connection) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if c.prepared == nil {
		return c.Conn.ExecContext(ctx, query, args...)
	}
	stmt, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, args...)
}

// QueryContext runs query, prepared if the connection keeps statements.
func (c *connection) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if c.prepared == nil {
		return c.Conn.QueryContext(ctx, query, args...)
	}
	stmt, err := c.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

func (c *connection) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt := c.prepared[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := c.PrepareContext(ctx, query)
	if err == nil {
		c.prepared[query] = stmt
	}
	return stmt, err
}

// release returns the connection to the pool.
func (c *connection) release() {
	c.closeStatements()
	_ = c.Close()
}

// discard closes the connection, whose state is not known, instead of returning
// it to the pool.
func (c *connection) discard() {
	c.closeStatements()
	_ = c.Raw(func(any) error { return driver.ErrBadConn })
	_ = c.Close()
}

// closeStatements closes the prepared statements, which has to happen before
// the connection is closed. It leaves them when somebody else has closed the
// connection already, because drivers may crash then.
func (c *connection) closeStatements() {
	for query, stmt := range c.prepared {
		if c.Raw(func(any) error { return nil }) == nil {
			_ = stmt.Close()
		}
		delete(c.prepared, query)
	}
}

// transaction runs work between begin and COMMIT. A failure before COMMIT has
// changed nothing. A failure of COMMIT is a commitError: whether it has changed
// anything is known only if the database answered. After a failure the
// connection can be used again, unless ctx has ended or mayBeBroken returns
// true.
func (c *connection) transaction(ctx context.Context, begin string, work func(querier) error) error {
	if _, err := c.ExecContext(ctx, begin); err != nil {
		return &beginError{err}
	}
	err := work(c)
	if err == nil {
		if _, err = c.ExecContext(ctx, "COMMIT"); err == nil {
			return nil
		}
		err = &commitError{err}
	}
	if ctx.Err() != nil {
		return err
	}
	// After some failures SQLite has rolled back already, and answers that there
	// is nothing to roll back.
	_, undone := c.ExecContext(ctx, "ROLLBACK")
	if undone != nil && causeOf(undone) != unknown {
		err = errors.Join(err, undone)
	}
	return err
}

// beginError is a failure to begin a transaction.
type beginError struct{ err error }

func (e *beginError) Error() string { return "begin: " + e.err.Error() }
func (e *beginError) Unwrap() error { return e.err }

type commitError struct{ err error }

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }
