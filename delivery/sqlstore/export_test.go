package sqlstore

import (
	"context"
	"fmt"
	"sync"

	"github.com/esh3artech/barid/dlq"
)

// Hold keeps one of the writer's transactions open until release is called,
// after it has executed some statements. If Config.InFlight is 1, the calls that
// come meanwhile are executed together after it.
func (s *Store) Hold(statements ...string) (release func()) {
	held, released, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	hold := newOperation("hold", 0, func(ctx context.Context, q querier, _ []int) error {
		for _, statement := range statements {
			if _, err := q.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		once.Do(func() { close(held) })
		<-released
		return nil
	}, nil)
	go func() {
		defer close(ended)
		_ = s.writer.execute(context.Background(), hold, size{rows: s.config.MaxBatch}, 0)
	}()
	<-held
	return func() {
		close(released)
		<-ended
	}
}

// SetMaxIdle sets after how many milliseconds the server ends a transaction that
// is silent. It must be called before the store is used.
func (s *Store) SetMaxIdle(ms int) {
	s.dialect.beginWrite += fmt.Sprintf("; SET LOCAL idle_in_transaction_session_timeout = %d", ms)
}

// Waiting is how many calls wait for the writer.
func (s *Store) Waiting() int { return len(s.writer.batches.queue) }

// ListStatement is the query that List makes.
func (d *DeadLetters) ListStatement(query dlq.Query) (text string, args []any, err error) {
	scan, err := query.Scan()
	if err != nil {
		return "", nil, err
	}
	text, args = d.store.letters.listQuery(&scan)
	return text, args, nil
}

// Prefix begins the names of the store's tables.
func (s *Store) Prefix() string { return s.prefix }

// DeleteExpiredAlways makes every transaction with keys delete expired ones.
func (s *Store) DeleteExpiredAlways() { s.keys.expiry.every = 0 }
