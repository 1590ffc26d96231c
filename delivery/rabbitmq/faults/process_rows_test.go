package faults

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/metrics"
)

const crashes = 3

func processRows() []row {
	return []row{
		{
			number: 22, fault: "worker paused past its lease", how: "SIGSTOP for 10 s with a lease of 2 s, SIGCONT",
			promise: "at most one overlap each, the lost lease is noticed", run: func(r *rowTest) { workerPaused(r, nil) },
		},
		{
			number: 23, fault: "process killed before the claim", how: "SIGKILL of itself, three times",
			promise: "0 duplicates", run: func(r *rowTest) { crash(r, nil, beforeClaim) },
		},
		{
			number: 24, fault: "process killed after the claim", how: "SIGKILL of itself, three times",
			promise: "0 duplicates, goes on after the lease", run: func(r *rowTest) { crash(r, nil, afterClaim) },
		},
		{
			number: 25, fault: "process killed after the effect", how: "SIGKILL of itself, three times",
			promise: "1 duplicate for each crash, and 1 for each message between effect and mark in a fourth one with 16 busy workers", bound: crashes, quick: true, run: func(r *rowTest) { crash(r, nil, afterEffect) },
		},
		{
			number: 26, fault: "process killed after the mark", how: "SIGKILL of itself, three times",
			promise: "0 duplicates", run: func(r *rowTest) { crash(r, nil, afterMark) },
		},
		{
			number: 46, fault: "message that kills its process", how: "its handler kills its process, each time, with 16 busy workers",
			promise: "it becomes a dead letter, what runs beside it does not; at most 16 duplicates a kill", quick: true, run: killedByMessage,
		},
		{
			number: 39, fault: "SIGTERM mid-flight", how: "SIGTERM with handlers of 50 ms, and of 8 s, running",
			promise: "drained within the deadline, the rest redelivered", run: terminated,
		},
	}
}

// childPipeline is a pipeline whose consumers are child processes, with keys and
// records in the database if there is one.
func (r *rowTest) childPipeline(db *database) (*pipeline, childConfig) {
	r.Helper()
	p := r.pipeline(pipelineConfig{noConsumer: true, database: db})
	config := childConfig{
		Database: db, AMQP: p.config.amqp, Redis: p.config.redis, Name: p.transportConfig.Name, LogFile: filepath.Join(r.TempDir(), "effects"),
		Concurrency: concurrency, Lease: 2 * time.Second, Drain: 5 * time.Second,
	}
	r.logChildStderr(config.LogFile)
	return p, config
}

// logChildStderr logs what the children wrote to standard error, if the row failed.
func (r *rowTest) logChildStderr(log string) {
	r.atEnd(func() {
		if text, err := os.ReadFile(log + ".stderr"); err == nil && r.Failed() {
			r.Logf("the children's standard error:\n%s", text[max(0, len(text)-3000):])
		}
	})
}

// awaitEffects waits until every message has had its effect by the children's log,
// and the queues are empty.
func (p *pipeline) awaitEffects(path string) {
	p.Helper()
	want := int(p.accepted.Load())
	p.within(2*time.Minute, func() bool {
		return len(p.readChildLog(path)[effectLine]) >= want
	}, "published messages have no effect")
	p.awaitEmpty()
}

// countEffects writes the effects into the ledger. All children have ended by then,
// and have given nothing back.
func (p *pipeline) countEffects(path string) {
	p.Helper()
	p.awaitEmpty()
	for id, times := range p.readChildLog(path)[effectLine] {
		assert.LessOrEqual(p, times, 2, "effects of %s", id)
		for range times {
			p.ledger.Effect(id)
		}
	}
}

// crash has three consumers die at the point, one after the other, each with one
// message there and nothing else under way. A last one does the rest.
func crash(r *rowTest, db *database, at crashPoint) {
	p, config := r.childPipeline(db)
	p.publishMany(minPublished)
	dying := config
	dying.Concurrency, dying.Point, dying.Alone = 1, at, true
	for i := range crashes {
		dying.At = 100 + 50*i
		r.child(dying).killed()
		p.checkUnrecorded(config.LogFile, at)
	}
	if at == afterEffect {
		crashBusy(r, config)
	}
	for done := false; !done; {
		last := r.child(config)
		p.awaitEffects(config.LogFile)
		if at == afterEffect {
			p.eventually(func() bool {
				done := r.readChildLog(config.LogFile)
				return done.total(effectLine)-len(done[effectLine]) >= crashes
			}, "what had its effect before a crash is not run again")
		}
		r.wait(config.Lease + time.Second) // for what waits for the lease of a dead one
		last.terminate(patience)
		done = p.isEmpty() // or some still waited, and is back
	}
	p.countEffects(config.LogFile)
	if at == afterEffect {
		assert.GreaterOrEqual(r, r.ledger.Report().Duplicates, crashes, "one more run for each crash")
	}
	if db != nil {
		r.allDelivered(p.store, int(p.accepted.Load()))
	}
}

// killedByMessage has a message kill every process that handles it, until one is left.
func killedByMessage(r *rowTest) {
	p, config := r.childPipeline(nil)
	p.publishMany(minPublished)
	poison := p.messages("poison", 1)
	p.publish(poison...)
	config.Poison = poison[0].ID
	kills := 0
	for {
		child := r.child(config)
		dead := false
		p.within(2*time.Minute, func() bool {
			dead = child.hasEnded()
			return dead || len(p.readChildLog(config.LogFile)[effectLine]) >= int(p.accepted.Load())-1 && p.isEmpty() && p.waitingLetters() > 0
		}, "neither is all done, nor is the process killed")
		if !dead {
			child.terminate(patience)
			break
		}
		child.killed()
		kills++
		require.Less(r, kills, 12, "processes were killed by one message")
		r.bound += concurrency
	}
	r.note("%d processes killed", kills)
	p.countEffects(config.LogFile)
	assert.EqualValues(r, 1, p.waitingLetters())
	p.ledger.DeadLetter(config.Poison)
}

// waitingLetters is how many dead letters wait in the broker.
func (p *pipeline) waitingLetters() int64 {
	p.Helper()
	waiting, err := p.transport.Waiting(p.ctx)
	require.NoError(p, err)
	return waiting.DeadLetters
}

// checkUnrecorded checks that a crash after the mark left a record behind that is not
// delivered although its key is done.
func (p *pipeline) checkUnrecorded(path string, at crashPoint) {
	p.Helper()
	if p.store == nil || at != afterMark {
		return
	}
	stats, err := p.store.Stats(p.ctx, "")
	require.NoError(p, err)
	assert.Less(p, stats.Of(delivery.StatusDelivered), p.readChildLog(path).total(markLine), "records that are delivered, of those that are marked")
}

// crashBusy is one more crash, with all workers busy: every message between its
// effect and its mark then comes once more.
func crashBusy(r *rowTest, config childConfig) {
	config.Point, config.At = afterEffect, 300
	before := r.readChildLog(config.LogFile)
	r.child(config).killed()
	after := r.readChildLog(config.LogFile)
	between := after.total(effectLine) - before.total(effectLine) - (after.total(markLine) - before.total(markLine))
	r.bound = crashes + between
	r.note("of a crash with %d handlers, %d messages were between effect and mark", config.Concurrency, between)
}

// workerPaused stops a process that has messages in hand for longer than their
// lease, while another one takes over.
//
// With a database the process has also claimed records that were due and sent them,
// and is stopped before it can record that.
func workerPaused(r *rowTest, db *database) {
	const held, claimed = 4, 40
	p, config := r.childPipeline(db)
	p.publishMany(held)
	holder := config
	holder.Hold, holder.Concurrency, holder.Stop = true, held, true
	paused := r.child(holder)
	p.eventually(func() bool {
		return len(r.readChildLog(config.LogFile)[effectLine]) == held
	}, "the worker does not work")
	var due []delivery.Message
	if db == nil {
		paused.signal(syscall.SIGSTOP)
	} else {
		due = p.scheduled("due", claimed, 500*time.Millisecond)
		p.publish(due...)
		p.eventually(func() bool {
			return len(r.readChildLog(config.LogFile)[stopLine]) > 0
		}, "the retry worker sends nothing")
	}
	begin := time.Now()
	p.publishMany(minPublished)
	if db != nil {
		idle := config
		idle.NoConsumer = true // or what was sent would be delivered before the claims end
		r.child(idle)
		p.eventually(func() bool {
			done := r.readChildLog(config.LogFile)
			return !slices.ContainsFunc(due, func(m delivery.Message) bool { return done[sendLine][m.ID+"/0"] < 2 })
		}, "the paused retry worker's records are not taken over")
	}
	other := r.child(config)
	r.wait(10*time.Second - time.Since(begin))
	// A worker that finds messages when it goes on would hold them until the end.
	p.awaitEffects(config.LogFile)
	assert.Empty(r, r.readChildLog(config.LogFile)[lostLine])
	overlaps := r.overlaps(config.LogFile)
	assert.Equal(r, held, overlaps, "what the paused worker held was not taken over")
	paused.signal(syscall.SIGCONT)
	r.bound = held
	p.eventually(func() bool {
		return len(r.readChildLog(config.LogFile)[lostLine]) == held
	}, "the lost leases are not noticed")
	p.awaitEffects(config.LogFile)
	paused.terminate(patience)
	other.terminate(patience)
	p.countEffects(config.LogFile)
	r.note("%d overlaps, each noticed by the one that was late", overlaps)
	if db == nil {
		return
	}
	r.allDelivered(p.store, int(p.accepted.Load()))
	r.checkSentTwice(due, config.LogFile)
}

// overlaps is how many messages had two effects.
func (r *rowTest) overlaps(log string) (count int) {
	r.Helper()
	for _, times := range r.readChildLog(log)[effectLine] {
		if times == 2 {
			count++
		}
	}
	return count
}

// checkSentTwice checks that the records were sent by the retry worker that was paused,
// and by another one that took them over, and that the paused one noticed it.
func (r *rowTest) checkSentTwice(due []delivery.Message, log string) {
	r.Helper()
	done := r.readChildLog(log)
	for _, m := range due {
		assert.Equal(r, 2, done[sendLine][m.ID+"/0"], "how often %s was sent", m.ID)
		assert.Equal(r, 1, done[lateLine][m.ID], "how often it was noticed that the claim on %s was lost", m.ID)
	}
	r.note("%d records were sent by the paused retry worker, and once more by another", len(due))
}

// terminated ends consumers that have handlers running: short ones finish in
// the drain, long ones are cancelled and come again.
func terminated(r *rowTest) {
	p, config := r.childPipeline(nil)
	p.publishMany(minPublished)
	var took []time.Duration
	end := func(work, drain time.Duration, atLeast int) {
		p.Helper()
		config.Work, config.Drain = work, drain
		before := len(r.readChildLog(config.LogFile)[effectLine])
		c := r.child(config)
		if atLeast > 0 {
			p.eventually(func() bool {
				return len(r.readChildLog(config.LogFile)[effectLine]) >= before+atLeast
			}, "nothing is consumed")
		} else {
			// Nothing is written by then: it is seen by what it takes from the queues.
			full, err := p.transport.Depth(r.ctx)
			require.NoError(r, err)
			p.eventually(func() bool {
				now, err := p.transport.Depth(r.ctx)
				return err == nil && now[delivery.Normal].Messages < full[delivery.Normal].Messages
			}, "nothing is fetched")
			r.wait(time.Second)
		}
		const cancelGrace = 5 * time.Second
		took = append(took, c.terminate(drain+cancelGrace+grace))
	}
	end(50*time.Millisecond, 5*time.Second, 200)
	end(8*time.Second, time.Second, 0)
	end(50*time.Millisecond, 5*time.Second, 200)
	config.Work = 0
	last := r.child(config)
	p.awaitEffects(config.LogFile)
	r.wait(time.Second)
	took = append(took, last.terminate(20*time.Second))
	p.countEffects(config.LogFile)
	r.note("ended after %.1f, %.1f (cancelled), %.1f and %.1f s", took[0].Seconds(), took[1].Seconds(), took[2].Seconds(), took[3].Seconds())
	assert.Zero(r, p.outcome(metrics.OutcomeRetried))
}
