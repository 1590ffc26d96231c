package faults

import (
	"fmt"
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

func crashRows() []row {
	return []row{
		{
			number: 22, fault: "worker paused past its lease", how: "SIGSTOP for 10 s with a lease of 2 s, SIGCONT",
			promise: "at most one overlap each, the lost lease is noticed", run: func(r *rig) { workerPaused(r, nil) },
		},
		{
			number: 23, fault: "process killed before the claim", how: "SIGKILL of itself, three times",
			promise: "0 duplicates", run: func(r *rig) { crash(r, nil, beforeClaim) },
		},
		{
			number: 24, fault: "process killed after the claim", how: "SIGKILL of itself, three times",
			promise: "0 duplicates, goes on after the lease", run: func(r *rig) { crash(r, nil, afterClaim) },
		},
		{
			number: 25, fault: "process killed after the effect", how: "SIGKILL of itself, three times",
			promise: "1 duplicate for each crash, and 1 for each message between effect and mark in a fourth one with 16 busy workers", bound: crashes, quick: true, run: func(r *rig) { crash(r, nil, afterEffect) },
		},
		{
			number: 26, fault: "process killed after the mark", how: "SIGKILL of itself, three times",
			promise: "0 duplicates", run: func(r *rig) { crash(r, nil, afterMark) },
		},
		{
			number: 39, fault: "SIGTERM mid-flight", how: "SIGTERM with handlers of 50 ms, and of 8 s, running",
			promise: "drained within the deadline, the rest redelivered", run: terminated,
		},
	}
}

// outside is a pipeline whose consuming is done by children, with keys and
// records in the database if there is one.
func (r *rig) outside(db *database) (*pipeline, job) {
	r.Helper()
	p := r.pipeline(setup{noConsumer: true, database: db})
	j := job{
		Database: db, AMQP: p.setup.amqp, Redis: p.setup.redis, Name: p.config.Name, Log: filepath.Join(r.TempDir(), "effects"),
		Concurrency: concurrency, Lease: 2 * time.Second, Drain: 5 * time.Second,
	}
	r.lastWords(j.Log)
	return p, j
}

// lastWords shows what the children complained of if the row failed.
func (r *rig) lastWords(log string) {
	r.later(func() {
		if text, err := os.ReadFile(log + ".stderr"); err == nil && r.Failed() {
			r.Logf("the children's last words:\n%s", text[max(0, len(text)-3000):])
		}
	})
}

// publishAll publishes so many messages.
func (p *pipeline) publishAll(n int) {
	for n > 0 {
		p.round++
		batch := p.messages(fmt.Sprint("all-", p.round), min(n, 250))
		p.publish(batch...)
		n -= len(batch)
	}
}

// effectsOf waits until every message has had its effect by the children's log,
// and the queues are empty.
func (p *pipeline) effectsOf(path string) {
	p.Helper()
	want := int(p.accepted.Load())
	p.within(2*time.Minute, func() bool {
		return len(p.read(path)[effectLine]) >= want
	}, "published messages have no effect")
	p.empty()
}

// empty waits until nothing is queued.
func (p *pipeline) empty() {
	p.Helper()
	p.eventually(p.isEmpty, "the queues don't become empty")
}

func (p *pipeline) isEmpty() bool {
	depths, err := p.transport.Depth(p.ctx)
	waiting := int64(0)
	for _, depth := range depths {
		waiting += depth.Messages
	}
	return err == nil && waiting == 0
}

// book writes the effects into the ledger, after all children have ended and
// given nothing back.
func (p *pipeline) book(path string) {
	p.Helper()
	p.empty()
	for id, times := range p.read(path)[effectLine] {
		assert.LessOrEqual(p, times, 2, "effects of %s", id)
		for range times {
			p.ledger.Effect(id)
		}
	}
}

// crash lets three consumers die at the point, one after the other, each with
// one message there and nothing else under way, and another one do the rest.
func crash(r *rig, db *database, at point) {
	p, j := r.outside(db)
	p.publishAll(fewThousand)
	dying := j
	dying.Concurrency, dying.Point, dying.Alone = 1, at, true
	for i := range crashes {
		dying.At = 100 + 50*i
		r.child(dying).killed()
		p.unnoted(j.Log, at)
	}
	if at == afterEffect {
		crowded(r, j)
	}
	for done := false; !done; {
		last := r.child(j)
		p.effectsOf(j.Log)
		if at == afterEffect {
			p.eventually(func() bool {
				done := r.read(j.Log)
				return done.total(effectLine)-len(done[effectLine]) >= crashes
			}, "what had its effect before a crash is not run again")
		}
		r.wait(j.Lease + time.Second) // for what waits for a dead one's lease
		last.terminate(patience)
		done = p.isEmpty() // or some still waited, and is back
	}
	p.book(j.Log)
	if at == afterEffect {
		assert.GreaterOrEqual(r, r.ledger.Report().Duplicates, crashes, "one more run for each crash")
	}
	if db != nil {
		r.allDelivered(p.records, int(p.accepted.Load()))
	}
}

// unnoted checks that a crash after the mark left a record behind that is not
// delivered though its key is done.
func (p *pipeline) unnoted(path string, at point) {
	p.Helper()
	if p.records == nil || at != afterMark {
		return
	}
	stats, err := p.records.Stats(p.ctx)
	require.NoError(p, err)
	assert.Less(p, stats.Of(delivery.StatusDelivered), p.read(path).total(markLine), "records that are delivered, of those that are marked")
}

// crowded is one more crash, with all workers busy: every message between its
// effect and its mark then comes once more.
func crowded(r *rig, j job) {
	j.Point, j.At = afterEffect, 300
	before := r.read(j.Log)
	r.child(j).killed()
	after := r.read(j.Log)
	between := after.total(effectLine) - before.total(effectLine) - (after.total(markLine) - before.total(markLine))
	r.bound = crashes + between
	r.note("of a crash with %d handlers, %d messages were between effect and mark", j.Concurrency, between)
}

// workerPaused stops a process that has messages in hand for longer than their
// lease, while another one takes over.
//
// With a database the process has also claimed records that were due, and sent
// them, and is stopped before it can note that.
func workerPaused(r *rig, db *database) {
	const held, claimed = 4, 40
	p, j := r.outside(db)
	p.publishAll(held)
	holder := j
	holder.Hold, holder.Concurrency, holder.Stop = true, held, true
	paused := r.child(holder)
	p.eventually(func() bool {
		return len(r.read(j.Log)[effectLine]) == held
	}, "the worker does not work")
	var due []delivery.Message
	if db == nil {
		paused.signal(syscall.SIGSTOP)
	} else {
		due = p.scheduled("due", claimed, 500*time.Millisecond)
		p.publish(due...)
		p.eventually(func() bool {
			return len(r.read(j.Log)[stopLine]) > 0
		}, "the retry worker sends nothing")
	}
	begin := time.Now()
	p.publishAll(fewThousand)
	if db != nil {
		idle := j
		idle.NoConsumer = true // lest what was sent is delivered before the claims end
		r.child(idle)
		p.eventually(func() bool {
			done := r.read(j.Log)
			return !slices.ContainsFunc(due, func(m delivery.Message) bool { return done[sendLine][m.ID+"/0"] < 2 })
		}, "the paused retry worker's records are not taken over")
	}
	other := r.child(j)
	r.wait(10*time.Second - time.Since(begin))
	assert.Empty(r, r.read(j.Log)[lostLine])
	overlaps := 0
	for _, times := range r.read(j.Log)[effectLine] {
		if times == 2 {
			overlaps++
		}
	}
	assert.Equal(r, held, overlaps, "what the paused worker held was not taken over")
	paused.signal(syscall.SIGCONT)
	r.bound = held
	p.eventually(func() bool {
		return len(r.read(j.Log)[lostLine]) == held
	}, "the lost leases are not noticed")
	p.effectsOf(j.Log)
	paused.terminate(patience)
	other.terminate(patience)
	p.book(j.Log)
	r.note("%d overlaps, each noticed by the one that was late", overlaps)
	if db == nil {
		return
	}
	r.allDelivered(p.records, int(p.accepted.Load()))
	done := r.read(j.Log)
	for _, m := range due {
		assert.Equal(r, 2, done[sendLine][m.ID+"/0"], "how often %s was sent", m.ID)
		assert.Equal(r, 1, done[lateLine][m.ID], "how often it was noticed that the claim on %s was lost", m.ID)
	}
	r.note("%d records were sent by the paused retry worker, and once more by another", claimed)
}

// terminated ends consumers that have handlers running: short ones finish in
// the drain, long ones are cancelled and come again.
func terminated(r *rig) {
	p, j := r.outside(nil)
	p.publishAll(fewThousand)
	var took []time.Duration
	end := func(work, drain time.Duration, atLeast int) {
		p.Helper()
		j.Work, j.Drain = work, drain
		before := len(r.read(j.Log)[effectLine])
		c := r.child(j)
		if atLeast > 0 {
			p.eventually(func() bool {
				return len(r.read(j.Log)[effectLine]) >= before+atLeast
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
	j.Work = 0
	last := r.child(j)
	p.effectsOf(j.Log)
	r.wait(time.Second)
	took = append(took, last.terminate(20*time.Second))
	p.book(j.Log)
	r.note("ended after %.1f, %.1f (cancelled), %.1f and %.1f s", took[0].Seconds(), took[1].Seconds(), took[2].Seconds(), took[3].Seconds())
	assert.Zero(r, p.outcome(metrics.OutcomeRetried))
}
