package faults

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/assert"
)

func storeProcessRows() []row {
	all := []row{
		{
			number: 22, fault: "worker paused past its lease, SQLite", how: "SIGSTOP of consumer and retry worker for 10 s with leases of 2 s, SIGCONT",
			promise: "at most one overlap each, the lost leases and claims are noticed",
			run:     func(r *rowTest) { db := r.sqlite(); workerPaused(r, &db) },
		},
		{
			number: 22, fault: "worker paused past its lease, PostgreSQL", how: "the same",
			promise: "the same", postgres: true,
			run: func(r *rowTest) { db := r.postgres(r.sql); workerPaused(r, &db) },
		},
		{
			number: 26, fault: "process killed anywhere, SQLite, in-process", how: "SIGKILL of itself at each of the four points, while it publishes; the next process goes on from the file",
			promise: "1 duplicate for the crash between effect and mark, every record ends delivered", bound: 1, quick: true, run: inProcess,
		},
	}
	for _, crashed := range []row{
		{number: 23, fault: "process killed before the claim", promise: "0 duplicates", run: func(r *rowTest) { crashOnSQL(r, beforeClaim) }},
		{number: 24, fault: "process killed after the claim", promise: "0 duplicates, goes on after the lease", run: func(r *rowTest) { crashOnSQL(r, afterClaim) }},
		{
			number: 25, fault: "process killed after the effect", bound: crashes,
			promise: "1 duplicate for each crash, and 1 for each message between effect and mark in a fourth one with 16 busy workers",
			run:     func(r *rowTest) { crashOnSQL(r, afterEffect) },
		},
		{
			number: 26, fault: "process killed after the mark",
			promise: "0 duplicates, the redelivered copy notes what the dead one could not", run: func(r *rowTest) { crashOnSQL(r, afterMark) },
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
func crashOnSQL(r *rowTest, at crashPoint) {
	db := r.sqlite()
	if r.row.postgres {
		db = r.postgres(r.sql)
	}
	crash(r, &db, at)
}

// inProcess has messages wait in the process that dies. All that it leaves is a file,
// whose records tell the next process what there is to do.
func inProcess(r *rowTest) {
	const each = 400
	db := r.sqlite()
	config := childConfig{
		Database: &db, InProcess: true, Name: "in-process", LogFile: filepath.Join(r.TempDir(), "effects"),
		Lease: retryWorkerLease, Drain: 5 * time.Second, Publish: each,
	}
	r.logChildStderr(config.LogFile)
	for i, at := range []crashPoint{beforeClaim, afterClaim, afterEffect, afterMark} {
		dying := config
		dying.Concurrency, dying.Point, dying.Alone, dying.At = 1, at, true, 60
		dying.Batch = fmt.Sprintf("26-%d", i)
		r.child(dying).killed()
	}
	store := r.openStore(db)
	// A record that the dead process had just recorded as waiting in it is not due for
	// up to a minute. That minute passes here while no process runs.
	r.advanceTimes(store, db, "progress", "due_at", time.Minute)
	config.Concurrency, config.Batch = concurrency, "26-last"
	last := r.child(config)
	var sent int
	var missing []string
	r.atEnd(func() {
		if r.Failed() {
			r.Logf("%d were published; without effect were %v", sent, missing)
		}
	})
	r.eventually(func() bool {
		done := r.readChildLog(config.LogFile)
		sent, missing = len(done[sentLine]), nil
		for id := range done[sentLine] {
			if done[effectLine][id] == 0 {
				missing = append(missing, id)
			}
		}
		return len(missing) == 0 && done[sentLine][fmt.Sprintf("%s-%d", config.Batch, each-1)] > 0
	}, "published messages have no effect")
	published := len(r.readChildLog(config.LogFile)[sentLine])
	r.allDelivered(store, published)
	last.terminate(patience)
	done := r.readChildLog(config.LogFile)
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
