package faults

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/delivery"
)

func storeCrashRows() []row {
	all := []row{
		{
			number: 22, fault: "worker paused past its lease, SQLite", how: "SIGSTOP of consumer and retry worker for 10 s with leases of 2 s, SIGCONT",
			promise: "at most one overlap each, the lost leases and claims are noticed",
			run:     func(r *rig) { db := r.sqlite(); workerPaused(r, &db) },
		},
		{
			number: 22, fault: "worker paused past its lease, PostgreSQL", how: "the same",
			promise: "the same", postgres: true,
			run: func(r *rig) { db := r.postgres(r.sql); workerPaused(r, &db) },
		},
		{
			number: 26, fault: "process killed anywhere, SQLite, in-process", how: "SIGKILL of itself at each of the four points, while it publishes; the next process goes on from the file",
			promise: "1 duplicate for the crash between effect and mark, every record ends delivered", bound: 1, quick: true, run: inProcess,
		},
		{
			number: 42, fault: "one of two retry workers killed, SQLite", how: "SIGKILL with half of a batch sent, the processes share the file",
			promise: "every due record sent, each at most once more",
			run:     func(r *rig) { workerKilled(r, r.sqlite()) },
		},
		{
			number: 42, fault: "one of two retry workers killed, PostgreSQL", how: "SIGKILL with half of a batch sent",
			promise: "every due record sent, each at most once more", postgres: true,
			run: func(r *rig) { workerKilled(r, r.postgres(r.sql)) },
		},
	}
	for _, crashed := range []row{
		{number: 23, fault: "process killed before the claim", promise: "0 duplicates", run: func(r *rig) { crashOnSQL(r, beforeClaim) }},
		{number: 24, fault: "process killed after the claim", promise: "0 duplicates, goes on after the lease", run: func(r *rig) { crashOnSQL(r, afterClaim) }},
		{
			number: 25, fault: "process killed after the effect", bound: crashes,
			promise: "1 duplicate for each crash, and 1 for each message between effect and mark in a fourth one with 16 busy workers",
			run:     func(r *rig) { crashOnSQL(r, afterEffect) },
		},
		{
			number: 26, fault: "process killed after the mark",
			promise: "0 duplicates, the redelivered copy notes what the dead one could not", run: func(r *rig) { crashOnSQL(r, afterMark) },
		},
	} {
		crashed.how = "SIGKILL of itself, three times"
		crashed.promise += ", every record ends delivered"
		for _, name := range []string{"SQLite", "PostgreSQL"} {
			each := crashed
			each.fault += ", " + name
			each.postgres = name == "PostgreSQL"
			all = append(all, each)
		}
	}
	slices.SortStableFunc(all, func(a, b row) int { return a.number - b.number })
	return all
}

// crashOnSQL is crash with keys and records in the row's database.
func crashOnSQL(r *rig, at point) {
	db := r.sqlite()
	if r.row.postgres {
		db = r.postgres(r.sql)
	}
	crash(r, &db, at)
}

// inProcess has messages wait in the process that dies. All that is left of it
// is a file: the records tell the next one what there is to do.
func inProcess(r *rig) {
	const each = 400
	db := r.sqlite()
	j := job{
		Database: &db, InProcess: true, Name: "in-process", Log: filepath.Join(r.TempDir(), "effects"),
		Lease: workLease, Drain: 5 * time.Second, Publish: each,
	}
	r.lastWords(j.Log)
	for i, at := range []point{beforeClaim, afterClaim, afterEffect, afterMark} {
		dying := j
		dying.Concurrency, dying.Point, dying.Alone, dying.At = 1, at, true, 60
		dying.Batch = fmt.Sprintf("26-%d", i)
		r.child(dying).killed()
	}
	store := r.records(db)
	// What waited in a process that died is its own for up to a minute, if that
	// came to note it in its last moments. The minute passes while nobody runs.
	r.nearer(store, db, "progress", "due_at", time.Minute)
	j.Concurrency, j.Batch = concurrency, "26-last"
	last := r.child(j)
	r.eventually(func() bool {
		done := r.read(j.Log)
		for id := range done[sentLine] {
			if done[effectLine][id] == 0 {
				return false
			}
		}
		return done[sentLine][fmt.Sprintf("%s-%d", j.Batch, each-1)] > 0
	}, "published messages have no effect")
	published := len(r.read(j.Log)[sentLine])
	r.allDelivered(store, published)
	last.terminate(patience)
	done := r.read(j.Log)
	for id := range done[sentLine] {
		r.ledger.Sent(id)
	}
	for id, times := range done[effectLine] {
		for range times {
			r.ledger.Effect(id)
		}
	}
	assert.Greater(r, published, each)
}

// workerKilled has two processes that only send what is due, one of which dies.
// Nobody suppresses duplicates, so that they show.
func workerKilled(r *rig, db database) {
	p := r.pipeline(setup{
		database: &db, handler: failOnce, noConsumer: true,
		consumer: func(config *delivery.ConsumerConfig) { config.Idempotency = nil },
	})
	j := job{
		Database: &db, AMQP: p.setup.amqp, Redis: p.setup.redis, Name: p.config.Name,
		Log: filepath.Join(r.TempDir(), "sent"), NoConsumer: true,
	}
	r.lastWords(j.Log)
	dying, second := j, j
	dying.Point, dying.At = midBatch, 5
	dying.Log += "-dying"
	r.lastWords(dying.Log)
	doomed, other := r.child(dying), r.child(second)
	p.eventually(func() bool {
		return len(r.read(j.Log)[readyLine]) > 0 && len(r.read(dying.Log)[readyLine]) > 0
	}, "the retry workers don't start")
	const due = time.Second
	for i := range fewThousand / 250 {
		p.publish(p.scheduled(fmt.Sprint("due-", i), 250, due)...)
	}
	doomed.killed()
	// Were anything consumed before the lease ends, there would be nothing to send
	// once more.
	p.eventually(func() bool {
		stats, err := p.records.Stats(r.ctx)
		return err == nil && stats.Of(delivery.StatusQueued) == int(p.accepted.Load())
	}, "records that are due are not sent")
	p.consume()
	p.drain()
	r.allDelivered(p.records, int(p.accepted.Load()))
	p.unconsume()
	other.terminate(patience)
	// A sending is one of a message for one of its attempts.
	sent := r.read(j.Log)[sendLine]
	atDeath := r.read(dying.Log)[sendLine]
	for sending, times := range atDeath {
		sent[sending] += times
	}
	copies := 0
	for _, times := range sent {
		copies += times - 1
	}
	assert.LessOrEqual(r, slices.Max(slices.Collect(maps.Values(sent))), 2, "how often something was sent")
	batch := workerConfig(nil).BatchSize
	assert.LessOrEqual(r, copies, batch, "second copies of one batch")
	assert.Positive(r, copies, "the worker did not die in the midst of anything")
	r.bound = copies
	r.note("%d of %d sendings by the one that died, %d were made once more", len(atDeath), len(sent), copies)
}
