package faults

import (
	"context"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

func storeRows() []row {
	return []row{
		{
			number: 21, fault: "clock jumps, SQLite", how: "the clock of one of two retry workers jumps by 15 s ahead, back, and behind; so do all due times and expiries in the database",
			promise: "duplicates at most of what ran at the moment, every record ends delivered", bound: 3 * concurrency,
			run: func(r *rig) { storeClockJumps(r, r.sqlite()) },
		},
		{
			number: 21, fault: "clock jumps, PostgreSQL", how: "the same",
			promise: "the same", bound: 3 * concurrency, postgres: true,
			run: func(r *rig) { storeClockJumps(r, r.postgres(r.sql)) },
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
			number: 41, fault: "message store's disk full, SQLite", how: "a file takes all of the tmpfs for 3 s; keys are there, too",
			promise: "Publish fails in time, nothing acked that is not recorded, recovers by itself", needs: noTmpfs, run: storeFull,
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

// skewedStore is what a store is to a process whose clock is wrong.
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

func (s *skewedStore) NextDue(ctx context.Context, statuses ...delivery.Status) (time.Time, error) {
	due, err := s.Store.NextDue(ctx, statuses...)
	if !due.IsZero() {
		due = due.Add(-s.skew())
	}
	return due, err
}

func (s *skewedStore) Watch(due func(at time.Time)) (stop func()) {
	return s.Store.Watch(func(at time.Time) { due(at.Add(-s.skew())) })
}

// storeClockJumps has workers disagree about the time, and the database's times
// be wrong for everybody, which is what becomes of them when all clocks jump.
func storeClockJumps(r *rig, db database) {
	var slow atomic.Int64
	p := r.pipeline(setup{
		database: &db, keys: true, pendingGrace: 5 * time.Second,
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
	skewed := &skewedStore{Store: p.records.Store}
	p.work(p.records)
	p.work(skewed)
	p.traffic()
	const jump, nearer = 15 * time.Second, 16 * time.Second
	for _, ahead := range []time.Duration{jump, 0, -jump} {
		p.flows(300)
		skewed.ahead.Store(int64(ahead))
		p.publish(p.scheduled("due"+ahead.String(), 100, time.Second)...)
		assert.Positive(r, r.nearer(p.records, db, "keys", "expires_at", nearer))
		assert.Positive(r, r.nearer(p.records, db, "progress", "due_at", nearer))
	}
	p.flows(300)
	p.finish()
	r.allDelivered(p.records, int(p.accepted.Load()))
	r.note("%d second copies suppressed", p.answered("duplicate")+p.answered("stale"))
}

// chronicle checks that nothing is acked before the database has answered that
// it knows.
type chronicle struct {
	known   sync.Map
	unknown atomic.Int64
	acked   atomic.Int64
}

func (c *chronicle) onUpdate(update delivery.Update, err error) {
	if err == nil || errors.Is(err, delivery.ErrLate) {
		c.known.Store(update.ID, true)
	}
}

func (c *chronicle) onAck(id string, _ delivery.Incoming) bool {
	c.acked.Add(1)
	if _, known := c.known.Load(id); !known {
		c.unknown.Add(1)
	}
	return true
}

// outageOf breaks the database under a pipeline that uses it.
func outageOf(r *rig, s setup, down, up func(p *pipeline), d time.Duration) {
	r.Helper()
	var c chronicle
	s.onAck, s.onUpdate, s.handler = c.onAck, c.onUpdate, failOnce
	s.pendingGrace = 5 * time.Second // what was saved without an answer is sent after it
	s.timeout = 3 * time.Second
	p := r.pipeline(s)
	p.work(p.records)
	p.traffic()
	p.flows(500)
	before := p.refused()
	down(p)
	p.eventually(func() bool {
		return p.refusedAs("store down")+p.refusedAs("not sent in time") > before["store down"]+before["not sent in time"]
	}, "Publish does not tell that the store is down")
	p.holdUp(d)
	up(p)
	p.flows(500)
	p.finish()
	r.allDelivered(p.records, int(p.accepted.Load()))
	for kind, times := range p.refused() {
		assert.NotContains(r, kind, "other", "%d times", times)
	}
	assert.Zero(r, c.unknown.Load(), "messages acked that were not recorded")
	assert.GreaterOrEqual(r, p.refusedAs("unknown"), p.refusedAs("store down"), "messages whose outcome is said to be known")
	r.note("%d acks, each after its record; %d refusals by Publish", c.acked.Load(), p.refusedAs("unknown"))
}

// ownPostgres starts one that the row may break.
func (r *rig) ownPostgres() *servers.Postgres {
	r.Helper()
	server, err := servers.NewPostgres(r.ctx, servers.PostgresConfig{})
	require.NoError(r, err)
	r.later(func() { assert.NoError(r, server.Close()) })
	return server
}

func storeKilled(r *rig) {
	server := r.ownPostgres()
	db := r.postgres(server)
	outageOf(r, setup{database: &db},
		func(*pipeline) { require.NoError(r, server.Kill()) },
		func(*pipeline) { require.NoError(r, server.Start(r.ctx)) }, 2*time.Second)
}

func storeHangs(r *rig) {
	server := r.ownPostgres()
	db := r.postgres(server)
	r.later(func() { server.Resume() }) //nolint:errcheck // it may run
	outageOf(r, setup{database: &db},
		func(*pipeline) { require.NoError(r, server.Pause()) },
		func(*pipeline) { require.NoError(r, server.Resume()) }, 2*time.Second)
}

// noTmpfs tells why a tmpfs can't be mounted here.
func noTmpfs() string {
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

func storeFull(r *rig) {
	dir := r.TempDir()
	require.NoError(r, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"))
	r.later(func() { assert.NoError(r, syscall.Unmount(dir, 0)) })
	db := sqliteIn(dir)
	ballast := filepath.Join(dir, "ballast")
	outageOf(r, setup{database: &db, keys: true},
		func(p *pipeline) {
			r.fill(ballast)
			p.eventually(func() bool {
				errs := p.records.Save(r.ctx, delivery.Record{
					Message:  delivery.Message{ID: delivery.NewID(), Recipient: "you", Body: make([]byte, 1<<20), CreatedAt: time.Now()},
					Progress: delivery.Progress{Status: delivery.StatusDelivered, UpdatedAt: time.Now()},
				})
				return errs != nil && errors.Is(errs[0], sqlstore.ErrDiskFull)
			}, "the store does not tell that the disk is full")
		},
		func(*pipeline) { require.NoError(r, os.Remove(ballast)) }, 3*time.Second)
}

// fill takes all the room that there is.
func (r *rig) fill(path string) {
	r.Helper()
	file, err := os.Create(path)
	require.NoError(r, err)
	for err == nil {
		_, err = file.Write(make([]byte, 64<<10))
	}
	require.ErrorIs(r, err, syscall.ENOSPC)
	require.NoError(r, file.Close())
}
