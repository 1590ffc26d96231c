package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

func handlerRows() []row {
	return []row{
		{
			number: 27, fault: "poison message", how: "the handler fails for 40 of them, always",
			promise: "3 attempts each, dead letter stored before the ack", quick: true, run: poison,
		},
		{
			number: 28, fault: "panic, Goexit", how: "the handler's first run for every 25th message",
			promise: "recovered, counted, all workers still there", quick: true, run: panics,
		},
		{
			number: 29, fault: "handler ignores its timeout", how: "works 6 s with a timeout of 1 s and a lease of 2 s",
			promise: "not acked before it returns, its slot and lease not given away, seen in the metrics", run: handlerIgnoresTimeout,
		},
		{
			number: 30, fault: "huge payload", how: "a body of 135 MiB",
			promise: "too large, found out locally", quick: true, run: hugePayload,
		},
		{
			number: 31, fault: "malformed messages, hostile headers", how: "published by another client",
			promise: "dead letters with the raw bytes, consumer goes on", quick: true, run: malformed,
		},
	}
}

// hasSuffix picks some of the traffic's messages by the end of their IDs.
func hasSuffix(id string, ends ...string) bool {
	for _, end := range ends {
		if strings.HasSuffix(id, end) {
			return true
		}
	}
	return false
}

var errPoison = errors.New("the provider does not take this")

func poison(r *rowTest) {
	const poisoned, attempts = 40, 3
	var early atomic.Int64
	var stored sync.Map
	p := r.pipeline(pipelineConfig{
		handler: func(_ context.Context, m delivery.Message) error {
			if strings.Contains(m.ID, "poison") {
				return errPoison
			}
			return nil
		},
		consumer: func(c *delivery.ConsumerConfig) {
			c.Retry = retry.Exponential{Base: time.Second, MaxRetries: attempts - 1}
		},
		onAck: func(id string, in delivery.Incoming) bool {
			envelope, err := in.Envelope()
			if err == nil && strings.Contains(id, "poison") && envelope.Attempt == attempts-1 {
				if _, found := stored.Load(id); !found {
					early.Add(1)
				}
			}
			return true
		},
	})
	p.deadLetterStore.onPut = func(letters []delivery.DeadLetter) {
		for _, letter := range letters {
			stored.Store(letter.Envelope.ID, true)
		}
	}
	p.startTraffic()
	p.awaitMore(300)
	bad := p.messages("poison", poisoned)
	p.publish(bad...)
	p.awaitMore(300)
	p.finish()
	for _, m := range bad {
		assert.Equal(r, []int{1, 2, 3}, p.attemptsOf(m.ID), m.ID)
	}
	letters := p.deadLetters()
	require.Len(r, letters, poisoned)
	for _, letter := range letters {
		assert.Equal(r, delivery.ReasonExhausted, letter.Reason)
		assert.Len(r, letter.Envelope.History, attempts)
	}
	assert.Zero(r, early.Load(), "acked before the dead letter was stored")
}

func panics(r *rowTest) {
	var panicked, exited atomic.Int64
	p := r.pipeline(pipelineConfig{
		handler: func(ctx context.Context, m delivery.Message) error {
			attempt, _ := delivery.AttemptFrom(ctx)
			switch {
			case attempt.Number > 1:
			case hasSuffix(m.ID, "0-0", "5-0"):
				panicked.Add(1)
				panic("as a handler should not")
			case hasSuffix(m.ID, "2-1", "7-1"):
				exited.Add(1)
				runtime.Goexit()
			}
			return nil
		},
	})
	p.startTraffic()
	p.awaitMore(1000)
	p.stopTraffic()
	p.drain()
	assert.Positive(r, panicked.Load())
	assert.Positive(r, exited.Load())
	assert.Equal(r, int(panicked.Load()+exited.Load()), p.outcome(metrics.OutcomeRetried), "each counts as a failed attempt")
	assert.Equal(r, int(panicked.Load()), p.log.count("host function panicked message_id="), "panics logged")
	r.note("%d panics, %d exits", panicked.Load(), exited.Load())
	p.checkWorkers()
	p.setHandler(nil)
	p.startTraffic()
	p.awaitMore(300)
	p.finish()
}

// checkWorkers checks that no worker was lost, by handlers that each wait until so
// many run at once.
func (p *pipeline) checkWorkers() {
	p.Helper()
	var meeting sync.WaitGroup
	meeting.Add(concurrency)
	p.setHandler(func(ctx context.Context, _ delivery.Message) error {
		meeting.Done()
		met := make(chan struct{})
		go func() {
			meeting.Wait()
			close(met)
		}()
		select {
		case <-met:
			return nil
		case <-ctx.Done():
			return retry.Permanent(ctx.Err())
		}
	})
	p.publish(p.messages("meeting", concurrency)...)
	p.drain()
	assert.Empty(p, p.deadLetters(), "workers were lost")
}

// handlerIgnoresTimeout has handlers that go on long after their context has ended.
func handlerIgnoresTimeout(r *rowTest) {
	const works = 6 * time.Second
	var busy sync.Map // the IDs that are being worked on
	var overlaps, early atomic.Int64
	p := r.pipeline(pipelineConfig{
		handler: func(_ context.Context, m delivery.Message) error {
			if !strings.Contains(m.ID, "deaf") {
				return nil
			}
			if _, running := busy.LoadOrStore(m.ID, true); running {
				overlaps.Add(1)
			}
			<-time.After(works)
			busy.Delete(m.ID)
			return nil
		},
		consumer: func(c *delivery.ConsumerConfig) {
			c.HandlerTimeout, c.IdempotencyLease = time.Second, 2*time.Second
		},
		onAck: func(id string, _ delivery.Incoming) bool {
			if _, running := busy.Load(id); running {
				early.Add(1)
			}
			return true
		},
	})
	p.startTraffic()
	p.awaitMore(200)
	p.publish(p.messages("deaf", concurrency/2)...)
	p.eventually(func() bool { return p.running.Load() >= concurrency/2 }, "they don't run")
	r.ctl("close_all_connections", "fault") // now the broker gives them out once more
	p.awaitMore(200)
	p.finish()
	assert.Zero(r, overlaps.Load(), "two runs at once")
	assert.Zero(r, early.Load(), "acked while it ran")
	assert.LessOrEqual(r, p.peak.Load(), int64(concurrency), "more handlers at once than slots")
	took := p.metrics.Snapshot().HandlerSeconds
	assert.GreaterOrEqual(r, took.Mean*float64(took.Count), works.Seconds()*concurrency/2, "seconds in the metrics")
}

func hugePayload(r *rowTest) {
	p := r.pipeline(pipelineConfig{
		maxBody:   200 << 20,
		transport: func(c *rabbitmq.Config) { c.MaxBodyBytes = rabbitmq.MaxBodyBytes },
	})
	p.startTraffic()
	p.awaitMore(300)
	huge := p.messages("huge", 1)
	huge[0].Body = make([]byte, 135<<20) // the broker ends a channel with more than 128
	require.ErrorIs(r, p.tryPublish(10*time.Second, huge...)[0], delivery.ErrTooLarge, "by the transport")
	p.config.maxBody = 0
	p.publishThrough(p.transport)
	require.ErrorIs(r, p.tryPublish(10*time.Second, huge...)[0], delivery.ErrTooLarge, "by the publisher")
	p.awaitMore(300)
	p.finish()
	assert.Zero(r, p.disconnects(""), "not found out locally: connections lost")
	assert.Equal(r, 2, p.refusedAs("too large"), "others were refused: %v", p.refused())
}

// malformed publishes what other programs might. What is no message becomes a
// dead letter with the body as it came.
func malformed(r *rowTest) {
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	p.awaitMore(300)
	hostile, harmless := hostileMessages(), harmlessHeaders()
	p.raw(func(channel *amqp.Channel) {
		require.NoError(r, channel.Confirm(false))
		put := func(m amqp.Publishing, name string) {
			m.Body, m.DeliveryMode = []byte(name), amqp.Persistent
			confirm, err := channel.PublishWithDeferredConfirm(p.transportConfig.Name, "normal", true, false, m)
			require.NoError(r, err)
			require.True(r, confirm.Wait())
			p.ledger.Sent(name)
		}
		for i, m := range hostile {
			put(m, fmt.Sprintf("31-hostile-%d", i))
		}
		for i, headers := range harmless {
			name := fmt.Sprintf("31-harmless-%d", i)
			headers["barid-recipient"] = "you"
			put(amqp.Publishing{MessageId: name, Headers: headers}, name)
		}
	})
	p.awaitMore(300)
	p.finish()
	letters := p.deadLetters()
	assert.Len(r, letters, len(hostile))
	for _, letter := range letters {
		assert.Equal(r, delivery.ReasonMalformed, letter.Reason)
		assert.True(r, bytes.HasPrefix(letter.Raw, []byte("31-hostile-")), "raw bytes: %q", letter.Raw)
	}
	assert.Zero(r, p.disconnects(""), "connections lost")
}

// hostileMessages are no messages of ours, though most claim to be.
func hostileMessages() []amqp.Publishing {
	deep := deepTable()
	return []amqp.Publishing{
		{},
		{Headers: amqp.Table{"barid-recipient": "you"}}, // no ID
		{MessageId: "m"}, // no recipient
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": 7}}, // wrong types
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": deep}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-attempt": "many"}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-attempt": int64(-1)}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-generation": 1.5}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-priority": int64(1 << 40)}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-history": "[{"}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-headers": "999999:x"}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-created": time.Now()}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "barid-subject": []any{nil, deep}}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": strings.Repeat("r", 4000)}},
		{MessageId: "m", Headers: amqp.Table{"barid-recipient": "you", "big": strings.Repeat("h", 100_000)}},
	}
}

// harmlessHeaders are headers with which a message is one of ours, whatever they say.
func harmlessHeaders() []amqp.Table {
	return []amqp.Table{
		{"x-death": []any{amqp.Table{"count": int64(1 << 40), "reason": "expired", "queue": "q"}}},
		{"x-delivery-count": "poison", "x-first-death-queue": deepTable()},
		{"barid-unknown": deepTable()},
		{"any": []any{nil, deepTable()}, "timestamp_in_ms": int64(1)},
		{"barid-dead-at": "never", "barid-dead-id": int64(3)},
	}
}

// deepTable is a table in a table, many times.
func deepTable() amqp.Table {
	deep := amqp.Table{"x": int32(1)}
	for range 30 {
		deep = amqp.Table{"deeper": deep}
	}
	return deep
}
