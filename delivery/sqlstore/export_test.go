package sqlstore

import (
	"context"

	"github.com/esh3artech/barid/dlq"
)

// Hold keeps one of the writer's transactions open until release is called, so
// that what is asked for meanwhile is carried out together after it, if
// Config.InFlight is 1.
func (s *Store) Hold() (release func()) {
	held, released, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	hold := newOperation("hold", 0, func(context.Context, querier, []int) error {
		close(held)
		<-released
		return nil
	}, nil)
	go func() {
		defer close(ended)
		_ = s.writer.perform(context.Background(), hold, size{rows: s.config.MaxBatch}, 0)
	}()
	<-held
	return func() {
		close(released)
		<-ended
	}
}

// Waiting is how many calls wait for the writer.
func (s *Store) Waiting() int { return len(s.writer.batches.jobs) }

// ListStatement is what List asks the database for.
func (d *DeadLetters) ListStatement(query dlq.Query) (text string, args []any, err error) {
	scan, err := query.Scan()
	if err != nil {
		return "", nil, err
	}
	text, args = d.listQuery(&scan)
	return text, args, nil
}

// Prefix begins the names of the store's tables.
func (s *Store) Prefix() string { return s.prefix }

// SweepAlways has every transaction with keys delete what has expired.
func (s *Store) SweepAlways() { s.keys.sweeper.every = 0 }
