package faults

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/metrics"
)

func retryRows() []row {
	return []row{
		{
			number: 42, fault: "one of two retry workers killed, SQLite", how: "SIGKILL with half of a batch sent, the processes share the file",
			promise: "every due record sent, each at most once more",
			run:     func(r *rowTest) { workerKilled(r, r.sqlite()) },
		},
		{
			number: 42, fault: "one of two retry workers killed, PostgreSQL", how: "SIGKILL with half of a batch sent",
			promise: "every due record sent, each at most once more", postgres: true,
			run: func(r *rowTest) { workerKilled(r, r.postgres(r.sql)) },
		},
		{
			number: 43, fault: "retry confirmed, ack lost", how: "connection reset before the ack of every failed attempt is sent",
			promise: "the old copy is stale: one chain of retries", quick: true, run: forkedRetry,
		},
	}
}

// forkedRetry loses the ack of each copy whose attempt failed, after its retry
// was confirmed.
func forkedRetry(r *rowTest) {
	// Fewer than workers, so that some are free while these wait for a reset.
	const failing = concurrency - 4
	var lost sync.Map
	var count atomic.Int64
	resets := []chan struct{}{make(chan struct{}), make(chan struct{})}
	n := r.network(r.broker.URL())
	p := r.pipeline(pipelineConfig{
		amqp: n.url,
		handler: func(ctx context.Context, m delivery.Message) error {
			attempt, _ := delivery.AttemptFrom(ctx)
			if !strings.Contains(m.ID, "failing") {
				return nil
			}
			if attempt.Number > 1 { // not while the acks of the attempt before are being lost
				select {
				case <-resets[attempt.Number-2]:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if attempt.Number < 3 {
				return errPoison
			}
			return nil
		},
		onAck: func(id string, in delivery.Incoming) bool {
			envelope, err := in.Envelope()
			if err != nil || !strings.Contains(id, "failing") || envelope.Attempt == 2 {
				return true
			}
			_, again := lost.LoadOrStore(fmt.Sprint(id, envelope.Attempt), true)
			if !again {
				count.Add(1)
			}
			return again
		},
	})
	p.startTraffic()
	p.awaitMore(200)
	messages := p.messages("failing", failing)
	p.publish(messages...)
	for i, reset := range resets {
		p.eventually(func() bool { return count.Load() >= int64(i+1)*failing }, "no retries")
		n.down()
		n.up()
		close(reset)
	}
	p.awaitMore(300)
	p.finish()
	for _, m := range messages {
		assert.Equal(r, []int{1, 2, 3}, p.attemptsOf(m.ID), "the chain of %s", m.ID)
	}
	assert.Positive(r, p.keyAnswers(metrics.IdempotencyStale), "no old copy was recognised as stale")
	r.note("%d acks lost, %d old copies stale, %d done before", count.Load(),
		p.keyAnswers(metrics.IdempotencyStale), p.keyAnswers(metrics.IdempotencyDuplicate))
}

// workerKilled has two processes that only send what is due, and one of them dies.
// Duplicates are not suppressed, so that they show.
func workerKilled(r *rowTest, db database) {
	p := r.pipeline(pipelineConfig{
		database: &db, handler: failOnce, noConsumer: true,
		consumer: func(config *delivery.ConsumerConfig) { config.Idempotency = nil },
	})
	config := childConfig{
		Database: &db, AMQP: p.config.amqp, Redis: p.config.redis, Name: p.transportConfig.Name,
		LogFile: filepath.Join(r.TempDir(), "sent"), NoConsumer: true,
	}
	r.logChildStderr(config.LogFile)
	dying, second := config, config
	dying.Point, dying.At = midBatch, 5
	dying.LogFile += "-dying"
	r.logChildStderr(dying.LogFile)
	doomed, other := r.child(dying), r.child(second)
	p.eventually(func() bool {
		return len(r.readChildLog(config.LogFile)[readyLine]) > 0 && len(r.readChildLog(dying.LogFile)[readyLine]) > 0
	}, "the retry workers don't start")
	const due = time.Second
	for i := range minPublished / 250 {
		p.publish(p.scheduled(fmt.Sprint("due-", i), 250, due)...)
	}
	doomed.killed()
	// If anything was consumed before the lease ends, it would not be sent again.
	p.eventually(func() bool {
		stats, err := p.store.Stats(r.ctx, "")
		return err == nil && stats.Of(delivery.StatusQueued) == int(p.accepted.Load())
	}, "records that are due are not sent")
	p.startConsumer()
	p.drain()
	r.allDelivered(p.store, int(p.accepted.Load()))
	p.stopConsumer()
	other.terminate(patience)
	sent, byDead, copies := r.sends(config.LogFile, dying.LogFile)
	assert.LessOrEqual(r, slices.Max(slices.Collect(maps.Values(sent))), 2, "how often something was sent")
	batch := retryWorkerConfig(nil).BatchSize
	assert.LessOrEqual(r, copies, batch, "second copies of one batch")
	assert.Positive(r, copies, "the worker did not die in the midst of anything")
	r.bound = copies
	r.note("%d of %d sends by the one that died, %d were made once more", byDead, len(sent), copies)
}

// sends are what two retry workers have sent: how often each attempt of a message,
// how many of them the dead one, and how many more than once.
func (r *rowTest) sends(log, logOfDead string) (sent map[string]int, byDead, copies int) {
	r.Helper()
	sent = r.readChildLog(log)[sendLine]
	dead := r.readChildLog(logOfDead)[sendLine]
	for send, times := range dead {
		sent[send] += times
	}
	for _, times := range sent {
		copies += times - 1
	}
	return sent, len(dead), copies
}
