package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry"
)

func storeRows() []row {
	return []row{
		{
			number: 21, fault: "clock jumps, SQLite", how: "the clock of one of two retry workers jumps by 15 s ahead, back, and behind; so do all due times and expiries in the database",
			promise: "duplicates at most of what ran at the moment, every record ends delivered", bound: 3 * concurrency,
			run: func(r *rowTest) { storeClockJumps(r, r.sqlite()) },
		},
		{
			number: 21, fault: "clock jumps, PostgreSQL", how: "the same",
			promise: "the same", bound: 3 * concurrency, postgres: true,
			run: func(r *rowTest) { storeClockJumps(r, r.postgres(r.sql)) },
		},
		{
			number: 37, fault: "dead-letter store missing, full", how: "store fails for 4 s; then takes 20 of 60",
			promise: "not acked, tried again at growing intervals", run: deadLetterStoreMissing,
		},
		{
			number: 41, fault: "message store killed, PostgreSQL", how: "SIGKILL for 3 s and more, start again",
			promise: "Publish fails in time, nothing acked that is not recorded, recovers by itself", quick: true, run: storeKilled,
		},
		{
			number: 41, fault: "message store hangs, PostgreSQL", how: "SIGSTOP for 5 s, SIGCONT",
			promise: "Publish fails in time, nothing acked that is not recorded, recovers by itself", run: storeHangs,
		},
		{
			number: 41, fault: "message store's rows locked", how: "5 due rows are locked for 4 s by somebody else",
			promise: "all others go on, the 5 are delivered afterwards", postgres: true, run: storeRowsLocked,
		},
		{
			number: 41, fault: "message store: an ID in an open transaction", how: "a host's transaction has saved an ID and stays open for 4 s; 8 callers publish the same elsewhere",
			promise: "all others go on, the callers learn that the outcome is unknown, it is sent once", postgres: true, run: storeTransactionOpen,
		},
		{
			number: 41, fault: "message store's disk full, SQLite", how: "a file takes all of the tmpfs for 3 s; keys are there, too",
			promise: "Publish fails in time, nothing acked that is not recorded, recovers by itself", needs: needTmpfs, run: storeFull,
		},
	}
}

var errOnce = errors.New("the first attempt fails")

// failOnce fails the first attempt of one in ten messages, so that there are
// retries, and not so many that the breaker opens.
func failOnce(ctx context.Context, m delivery.Message) error {
	if attempt, _ := delivery.AttemptFrom(ctx); attempt.Number == 1 && crc32.ChecksumIEEE([]byte(m.ID))%10 == 0 {
		return errOnce
	}
	return nil
}

// skewedStore is a store as a process with a wrong clock uses it.
type skewedStore struct {
	*sqlstore.Store
	ahead atomic.Int64
}

func (s *skewedStore) skew() time.Duration { return time.Duration(s.ahead.Load()) }

func (s *skewedStore) Claim(ctx context.Context, claim delivery.Claim) ([]delivery.Record, error) {
	claim.Now = claim.Now.Add(s.skew())
	return s.Store.Claim(ctx, claim)
}

func (s *skewedStore) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	skewed := make([]delivery.Update, len(updates))
	for i, update := range updates {
		update.At = update.At.Add(s.skew())
		if !update.DueAt.IsZero() {
			update.DueAt = update.DueAt.Add(s.skew())
		}
		skewed[i] = update
	}
	return s.Store.Update(ctx, skewed...)
}

func (s *skewedStore) NextDue(ctx context.Context, queue string, statuses ...delivery.Status) (time.Time, error) {
	due, err := s.Store.NextDue(ctx, queue, statuses...)
	if !due.IsZero() {
		due = due.Add(-s.skew())
	}
	return due, err
}

func (s *skewedStore) Watch(due func(at time.Time)) (stop func()) {
	return s.Store.Watch(func(at time.Time) { due(at.Add(-s.skew())) })
}

// storeClockJumps makes workers disagree about the time. And it moves the times in the
// database, which has the same effect as a jump of all clocks.
func storeClockJumps(r *rowTest, db database) {
	var slow atomic.Int64
	p := r.pipeline(pipelineConfig{
		database: &db, keysInDatabase: true, pendingGrace: 5 * time.Second,
		handler: func(ctx context.Context, m delivery.Message) error {
			if slow.Add(1)%50 == 0 {
				select { // some run while it happens
				case <-time.After(time.Second):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			return failOnce(ctx, m)
		},
	})
	skewed := &skewedStore{Store: p.store.Store}
	p.runRetryWorker(p.store)
	p.runRetryWorker(skewed)
	p.startTraffic()
	const jump, nearer = 15 * time.Second, 16 * time.Second
	for _, ahead := range []time.Duration{jump, 0, -jump} {
		p.awaitMore(300)
		skewed.ahead.Store(int64(ahead))
		p.publish(p.scheduled("due"+ahead.String(), 100, time.Second)...)
		assert.Positive(r, r.advanceTimes(p.store, db, "keys", "expires_at", nearer))
		assert.Positive(r, r.advanceTimes(p.store, db, "progress", "due_at", nearer))
	}
	p.awaitMore(300)
	p.finish()
	r.allDelivered(p.store, int(p.accepted.Load()))
	r.note("%d second copies suppressed", p.keyAnswers("duplicate")+p.keyAnswers("stale"))
}

// ackOrder checks that nothing is acked before the database has recorded it.
type ackOrder struct {
	recorded sync.Map
	early    atomic.Int64
	acked    atomic.Int64
}

func (c *ackOrder) onUpdate(update delivery.Update, err error) {
	if err == nil || errors.Is(err, delivery.ErrLate) {
		c.recorded.Store(update.ID, true)
	}
}

func (c *ackOrder) onAck(id string, _ delivery.Incoming) bool {
	c.acked.Add(1)
	if _, known := c.recorded.Load(id); !known {
		c.early.Add(1)
	}
	return true
}

// storeOutage breaks the database under a pipeline that uses it.
func storeOutage(r *rowTest, s pipelineConfig, down, up func(p *pipeline), d time.Duration) {
	r.Helper()
	var c ackOrder
	s.onAck, s.onUpdate, s.handler = c.onAck, c.onUpdate, failOnce
	s.pendingGrace = 5 * time.Second // what was saved without an answer is sent after that time
	s.timeout = 3 * time.Second
	p := r.pipeline(s)
	p.runRetryWorker(p.store)
	p.startTraffic()
	p.awaitMore(500)
	before := p.refused()
	down(p)
	p.eventually(func() bool {
		return p.refusedAs("store down")+p.refusedAs("not sent in time") > before["store down"]+before["not sent in time"]
	}, "Publish does not tell that the store is down")
	p.awaitNoAcks(d)
	up(p)
	p.awaitMore(500)
	p.finish()
	r.allDelivered(p.store, int(p.accepted.Load()))
	for kind, times := range p.refused() {
		assert.NotContains(r, kind, "other", "%d times", times)
	}
	assert.Zero(r, c.early.Load(), "messages acked that were not recorded")
	assert.GreaterOrEqual(r, p.refusedAs("unknown"), p.refusedAs("store down"), "messages whose outcome is said to be known")
	r.note("%d acks, each after its record; %d refusals by Publish", c.acked.Load(), p.refusedAs("unknown"))
}

// ownPostgres starts a PostgreSQL that the row may break.
func (r *rowTest) ownPostgres() *servers.Postgres {
	r.Helper()
	server, err := servers.NewPostgres(r.ctx, servers.PostgresConfig{})
	require.NoError(r, err)
	r.atEnd(func() { assert.NoError(r, server.Close()) })
	return server
}

func storeKilled(r *rowTest) {
	server := r.ownPostgres()
	db := r.postgres(server)
	storeOutage(r, pipelineConfig{database: &db},
		func(*pipeline) { require.NoError(r, server.Kill()) },
		func(*pipeline) { require.NoError(r, server.Start(r.ctx)) }, 2*time.Second)
}

func storeHangs(r *rowTest) {
	server := r.ownPostgres()
	db := r.postgres(server)
	r.atEnd(func() { server.Resume() }) //nolint:errcheck // it may run
	storeOutage(r, pipelineConfig{database: &db},
		func(*pipeline) { require.NoError(r, server.Pause()) },
		func(*pipeline) { require.NoError(r, server.Resume()) }, 2*time.Second)
}

func storeRowsLocked(r *rowTest) {
	db := r.postgres(r.sql)
	storeLock(r, db, func(p *pipeline, tx *sql.Tx) func() {
		p.publish(p.scheduled("locked", 5, time.Second)...)
		locked, err := tx.ExecContext(r.ctx, fmt.Sprintf("SELECT FROM %sprogress WHERE convert_from(id, 'UTF8') LIKE '%%-locked-%%' FOR UPDATE", db.Prefix))
		require.NoError(r, err)
		rows, err := locked.RowsAffected()
		require.NoError(r, err)
		require.EqualValues(r, 5, rows)
		return func() { require.NoError(r, tx.Rollback()) }
	})
}

// storeTransactionOpen has a host save a message in a transaction that it does not
// end, while its clients publish the same message elsewhere, in vain.
func storeTransactionOpen(r *rowTest) {
	storeLock(r, r.postgres(r.sql), func(p *pipeline, tx *sql.Tx) func() {
		held := p.messages("held", 1)
		publisher := p.publisher.Load()
		committed, err := publisher.PublishIn(r.ctx, p.store.In(tx), held...)
		require.NoError(r, err)
		var elsewhere sync.WaitGroup
		for range callers {
			elsewhere.Go(func() {
				ctx, cancel := context.WithTimeout(r.ctx, time.Second)
				defer cancel()
				assert.ErrorIs(r, publisher.Publish(ctx, held...), delivery.ErrOutcomeUnknown)
			})
		}
		return func() {
			elsewhere.Wait()
			require.NoError(r, tx.Commit())
			committed()
			p.publish(held...) // is there already
		}
	})
}

// storeLock has somebody else's transaction hold locks under a pipeline's traffic,
// until the function is called that lock returns.
func storeLock(r *rowTest, db database, lock func(p *pipeline, tx *sql.Tx) (unlock func())) {
	r.Helper()
	const held = 4 * time.Second
	p := r.pipeline(pipelineConfig{database: &db, handler: failOnce})
	p.runRetryWorker(p.store)
	p.startTraffic()
	p.awaitMore(300)
	tx, err := p.store.db.BeginTx(r.ctx, nil)
	require.NoError(r, err)
	r.atEnd(func() { tx.Rollback() }) //nolint:errcheck // it may have ended
	unlock := lock(p, tx)
	var longest time.Duration
	for begin := time.Now(); time.Since(begin) < held; {
		one := time.Now()
		p.publish(p.messages(fmt.Sprint("other", one.UnixNano()), 1)...)
		longest = max(longest, time.Since(one))
	}
	assert.Less(r, longest, held, "a publish waited for the lock's end")
	assert.Empty(r, p.refused())
	unlock()
	p.awaitMore(300)
	p.finish()
	r.allDelivered(p.store, int(p.accepted.Load()))
	r.note("the longest of the others' publishes took %d ms", longest.Milliseconds())
}

// needTmpfs returns why a tmpfs can't be mounted here, or "".
func needTmpfs() string {
	if os.Geteuid() != 0 {
		return "mounting a tmpfs needs root"
	}
	dir, err := os.MkdirTemp("", "barid-tmpfs-")
	if err != nil {
		return err.Error()
	}
	defer os.Remove(dir) //nolint:errcheck // it is empty
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return "mounting a tmpfs: " + err.Error()
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		return "unmounting a tmpfs: " + err.Error()
	}
	return ""
}

func storeFull(r *rowTest) {
	dir := r.TempDir()
	require.NoError(r, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"))
	r.atEnd(func() { assert.NoError(r, syscall.Unmount(dir, 0)) })
	db := sqliteIn(dir)
	ballast := filepath.Join(dir, "ballast")
	storeOutage(r, pipelineConfig{database: &db, keysInDatabase: true},
		func(p *pipeline) {
			r.fill(ballast)
			p.eventually(func() bool {
				errs := p.store.Save(r.ctx, delivery.Record{
					Message:  delivery.Message{ID: delivery.NewID(), Recipient: "you", Body: make([]byte, 1<<20), CreatedAt: time.Now()},
					Progress: delivery.Progress{Queue: "ballast", Status: delivery.StatusDelivered, UpdatedAt: time.Now()},
				})
				return errs != nil && errors.Is(errs[0], sqlstore.ErrDiskFull)
			}, "the store does not tell that the disk is full")
		},
		func(*pipeline) { require.NoError(r, os.Remove(ballast)) }, 3*time.Second)
}

// fill writes a file until the disk is full.
func (r *rowTest) fill(path string) {
	r.Helper()
	file, err := os.Create(path)
	require.NoError(r, err)
	for err == nil {
		_, err = file.Write(make([]byte, 64<<10))
	}
	require.ErrorIs(r, err, syscall.ENOSPC)
	require.NoError(r, file.Close())
}

func deadLetterStoreMissing(r *rowTest) {
	const poisoned, room = 30, 20
	var acked sync.Map
	memory := dlq.NewMemory(dlq.MemoryConfig{MaxEntries: room})
	p := r.pipeline(pipelineConfig{
		deadLetters: memory,
		handler: func(_ context.Context, m delivery.Message) error {
			if strings.Contains(m.ID, "poison") {
				return retry.Permanent(errPoison)
			}
			return nil
		},
		onAck: func(id string, _ delivery.Incoming) bool {
			if strings.Contains(id, "poison") {
				acked.Store(id, true)
			}
			return true
		},
	})
	ackedNow := func() (n int) {
		acked.Range(func(any, any) bool { n++; return true })
		return n
	}
	p.startTraffic()
	p.awaitMore(300)
	p.deadLetterStore.down.Store(true)
	p.publish(p.messages("poison-a", poisoned)...)
	p.eventually(func() bool { return p.deadLetterStore.tries.Load() >= poisoned }, "nobody tries to store")
	begin, tries := time.Now(), p.deadLetterStore.tries.Load()
	r.wait(4 * time.Second)
	assert.Zero(r, ackedNow(), "acked without a home")
	// Each waits 100 ms, then twice as long each time.
	assert.Less(r, p.deadLetterStore.tries.Load()-tries, int64(poisoned*8), "a hot loop")
	r.note("%d tries to store %d letters in %.0f s", p.deadLetterStore.tries.Load(), poisoned, time.Since(begin).Seconds())
	p.awaitMore(200) // others are not held up
	p.deadLetterStore.down.Store(false)
	// Now there is room for some of them.
	p.publish(p.messages("poison-b", poisoned)...)
	p.eventually(func() bool { return ackedNow() >= room }, "what has room is not settled")
	r.wait(2 * time.Second)
	assert.Equal(r, room, ackedNow(), "acked without a home")
	p.removeDeadLetters(2 * poisoned)
	p.awaitMore(200)
	p.finish()
	assert.Equal(r, 2*poisoned, ackedNow())
	assert.Equal(r, 2*poisoned, r.ledger.Report().DeadLetters)
}

// removeDeadLetters counts n dead letters and deletes them, as they come.
func (p *pipeline) removeDeadLetters(n int) {
	p.Helper()
	for made := 0; made < n; {
		letters := p.deadLetters()
		p.countDeadLetters()
		var ids []string
		for _, letter := range letters {
			ids = append(ids, letter.ID)
		}
		made += len(ids)
		_, err := p.manager.Delete(p.ctx, ids...)
		require.NoError(p, err)
		p.wait(50 * time.Millisecond)
	}
}
