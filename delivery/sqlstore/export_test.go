package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/esh3artech/barid/delivery"
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

// ExplainClaim is how the database finds what a claim takes, by priority and by
// due time, in a transaction like those of claims.
func (s *Store) ExplainClaim(ctx context.Context, claim delivery.Claim) (byPriority, dueFirst string, err error) {
	args := []any{[]byte(claim.Queue), claim.Now.UnixMicro(), int64(claim.Limit)}
	byPriority, err = s.explainWrite(ctx, s.records.byPriority(claim.Status, s.dialect.skipLocked), args...)
	if err == nil {
		dueFirst, err = s.explainWrite(ctx, s.records.dueFirst(claim.Status, s.dialect.skipLocked), args...)
	}
	return byPriority, dueFirst, err
}

// ExplainPurge is how the database finds what may be purged.
func (s *Store) ExplainPurge(ctx context.Context, queue string) (string, error) {
	return s.explainWrite(ctx, s.records.purgeable(), []byte(queue), int64(1), int64(100))
}

// ExplainLeases is how the database finds what a renewal writes, and what is under a
// lease. Where every record is under it, PostgreSQL may rightly read them as they come,
// depending on its version, so it is told to prefer an index.
func (s *Store) ExplainLeases(ctx context.Context, queue, token string) (plans []string, err error) {
	for _, statement := range append(s.records.moveUnderLease(s.dialect.rowLocks), s.records.dropLease()) {
		plan, err := s.explainIndexed(ctx, statement, []byte(token), []byte(queue))
		if err != nil {
			return nil, err
		}
		plans = append(plans, plan)
	}
	plan, err := s.explainIndexed(ctx, s.records.moveFromLease(delivery.StatusQueued), []byte(token), []byte(queue), int64(1))
	if err != nil {
		return nil, err
	}
	plans = append(plans, plan)
	err = s.reader.read(ctx, "explain", func(q querier) error {
		plan, err = s.explain(ctx, q, s.records.firstEnd(delivery.StatusQueued), []byte(queue))
		return err
	})
	return append(plans, plan), err
}

// ExplainList is how the database finds the records of a page.
func (s *Store) ExplainList(ctx context.Context, list delivery.RecordQuery) (plan string, err error) {
	scan, err := list.Scan()
	if err != nil {
		return "", err
	}
	text, args := s.records.listQuery(&scan)
	err = s.reader.read(ctx, "explain", func(q querier) error {
		plan, err = s.explain(ctx, q, text, args...)
		return err
	})
	return plan, err
}

// ExplainAdoption is how the database finds records without a queue, with its own
// settings, as Open asks it.
func (s *Store) ExplainAdoption(ctx context.Context) (string, error) {
	return s.explain(ctx, s.reader.db, queueless(s.records.progress.name, adoptChunk))
}

// Leases is how many leases there are.
func (s *Store) Leases(ctx context.Context) (n int, err error) {
	err = s.reader.read(ctx, "leases", func(q querier) error {
		return query(ctx, q, func(answer scanner) error { return answer.Scan(&n) }, "SELECT COUNT(*) FROM "+s.records.leases)
	})
	return n, err
}

// Analyze has the database learn how the records are spread.
func (s *Store) Analyze(ctx context.Context) error {
	for _, table := range []string{s.records.messages.name, s.records.progress.name, s.records.leases} {
		if _, err := s.reader.db.ExecContext(ctx, "ANALYZE "+table); err != nil {
			return err
		}
	}
	return nil
}

// explainWrite explains a statement in a transaction that writes.
func (s *Store) explainWrite(ctx context.Context, text string, args ...any) (plan string, err error) {
	return s.explainAfter(ctx, "", text, args...)
}

// explainIndexed is explainWrite for a database that prefers an index to reading all.
func (s *Store) explainIndexed(ctx context.Context, text string, args ...any) (plan string, err error) {
	setting := "SET LOCAL enable_seqscan TO off"
	if s.dialect.kind == SQLite {
		setting = ""
	}
	return s.explainAfter(ctx, setting, text, args...)
}

func (s *Store) explainAfter(ctx context.Context, setting, text string, args ...any) (plan string, err error) {
	operation := newOperation("explain", 0, func(ctx context.Context, q querier, _ []int) error {
		if setting != "" {
			if _, err := q.ExecContext(ctx, setting); err != nil {
				return err
			}
		}
		plan, err = s.explain(ctx, q, text, args...)
		return err
	}, nil)
	err = s.writer.execute(ctx, operation, size{rows: 1}, 0)
	return plan, err
}

func (s *Store) explain(ctx context.Context, q querier, text string, args ...any) (string, error) {
	explain, into := "EXPLAIN ", func(line *string) []any { return []any{line} }
	if s.dialect.kind == SQLite {
		explain, into = "EXPLAIN QUERY PLAN ", func(line *string) []any { return []any{new(int), new(int), new(int), line} }
	}
	var lines []string
	err := query(ctx, q, func(answer scanner) error {
		var line string
		err := answer.Scan(into(&line)...)
		lines = append(lines, line)
		return err
	}, explain+text, args...)
	return strings.Join(lines, "\n"), err
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
