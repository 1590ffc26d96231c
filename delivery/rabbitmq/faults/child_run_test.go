package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
	"github.com/esh3artech/barid/retry"
)

// childRun is what a child works with.
type childRun struct {
	*childConfig
	progress  childProgress
	logFile   *os.File
	logger    *slog.Logger
	transport delivery.Transport
	keys      *hookedKeyStore
	store     *databaseStore // nil without a database
	stopped   atomic.Bool
	closing   []func() error
}

func (c *childConfig) run(ctx context.Context) error {
	file, err := os.OpenFile(c.LogFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // every line was written at once
	run := &childRun{childConfig: c, logFile: file, logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	defer func() {
		for _, do := range slices.Backward(run.closing) {
			do() //nolint:errcheck // it is over
		}
	}()
	if err := run.open(ctx); err != nil {
		return err
	}
	return run.runAll(ctx)
}

func (c *childRun) log(word, id string) error {
	_, err := c.logFile.WriteString(word + " " + id + "\n")
	return err
}

func (c *childRun) open(ctx context.Context) error {
	if c.InProcess {
		transport := memory.New(memory.Config{Name: c.Name})
		c.closing = append(c.closing, transport.Close)
		c.transport = transport
		c.progress.beforeKill = c.awaitQueuedRecord
	} else {
		transport, err := rabbitmq.Open(ctx, rabbitmq.Config{
			URL: c.AMQP, Name: c.Name, Heartbeat: time.Second, MaxReconnectDelay: time.Second, Logger: c.logger,
		})
		if err != nil {
			return err
		}
		c.closing = append(c.closing, transport.Close)
		c.transport = &hookedTransport{Transport: transport, onSend: c.send}
	}
	c.keys = &hookedKeyStore{}
	c.keys.beforeClaim = func(string) { c.reach(beforeClaim, &c.progress) }
	c.keys.afterClaim = func(string) { c.reach(afterClaim, &c.progress) }
	c.keys.afterComplete = func(key string) {
		c.log(markLine, key) //nolint:errcheck // then there are too few marks
		c.progress.marks.Add(1)
		c.reach(afterMark, &c.progress)
	}
	if c.Database != nil {
		records, err := c.Database.open(ctx, c.logger)
		if err != nil {
			return err
		}
		c.closing = append(c.closing, records.Close)
		c.store, c.keys.Store = records, records.Keys()
		return nil
	}
	client, err := redisstore.NewClient(c.Redis)
	if err != nil {
		return err
	}
	store := redisstore.New(client, redisstore.Config{Prefix: c.Name + ":"})
	c.closing = append(c.closing, client.Close, store.Close)
	c.keys.Store = store
	return nil
}

// awaitQueuedRecord waits until a record says that its message is queued, that is, in
// this process. What was just published says so a little later.
func (c *childRun) awaitQueuedRecord() {
	for {
		stats, err := c.store.Stats(context.Background(), "")
		if err == nil && stats.Of(delivery.StatusQueued) > 0 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

// runAll runs publisher, consumer and retry worker until ctx ends. The retry worker
// ends last: while a consumer has messages in hand, it renews their records' leases.
func (c *childRun) runAll(ctx context.Context) error {
	var tasks []func(context.Context) error
	if c.Publish > 0 {
		tasks = append(tasks, c.runPublisher)
	}
	if !c.NoConsumer {
		tasks = append(tasks, c.runConsumer)
	}
	workerCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	workerDone := make(chan error, 1)
	go func() { workerDone <- c.runRetryWorker(workerCtx) }()
	if err := c.log(readyLine, c.Name); err != nil {
		return err
	}
	done := make(chan error, len(tasks))
	for _, task := range tasks {
		go func() { done <- task(ctx) }()
	}
	var faults []error
	for range tasks {
		faults = append(faults, <-done)
	}
	if errors.Join(faults...) == nil {
		<-ctx.Done()
	}
	stop()
	return errors.Join(append(faults, <-workerDone)...)
}

func (c *childRun) runConsumer(ctx context.Context) error {
	config := delivery.ConsumerConfig{
		Concurrency: c.Concurrency, Prefetch: prefetch,
		HandlerTimeout: time.Minute, DrainTimeout: c.Drain,
		Retry:       retry.Exponential{Base: time.Second, MaxRetries: 3},
		Idempotency: c.keys, IdempotencyLease: c.Lease, IdempotencyWindow: 30 * time.Minute,
		Breaker:     breaker.New(breaker.Config{SampleSize: 500}),
		DeadLetters: noDeadLetters(), Logger: c.logger,
	}
	if c.store != nil {
		config.Store = c.store
	}
	if c.Poison != "" {
		config.DeadLetters = nil
	}
	consumer, err := delivery.NewConsumer(c.transport, c.handle, config)
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

// noDeadLetters is a dead-letter store for rows that have no dead letters.
func noDeadLetters() delivery.DeadLetterer {
	return dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{})
}

func (c *childRun) handle(ctx context.Context, m delivery.Message) error {
	if m.ID == c.Poison {
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it can't fail
		select {}
	}
	if c.Work > 0 {
		select {
		case <-time.After(c.Work):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if c.progress.dying.Load() {
		select {} // the process is about to die
	}
	if err := c.log(effectLine, m.ID); err != nil {
		return err
	}
	c.progress.effects.Add(1)
	c.reach(afterEffect, &c.progress)
	if c.Hold {
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), idempotency.ErrLost) {
			return c.log(lostLine, m.ID)
		}
	}
	return ctx.Err()
}

// runRetryWorker runs a RetryWorker if there are records.
func (c *childRun) runRetryWorker(ctx context.Context) error {
	if c.store == nil {
		return nil
	}
	config := retryWorkerConfig(c.logger)
	config.DeadLetters = noDeadLetters()
	store := &hookedMessageStore{Store: c.store.Store, onUpdate: func(update delivery.Update, err error) {
		if errors.Is(err, delivery.ErrLate) {
			c.log(lateLine, update.ID) //nolint:errcheck // then there are too few
		}
	}}
	worker, err := delivery.NewRetryWorker(store, c.transport, config)
	if err != nil {
		return err
	}
	return worker.Run(ctx)
}

// send sends a batch for the retry worker. If the config says so, the child dies
// half-way through it, or is stopped after the first one.
func (c *childRun) send(ctx context.Context, batch []delivery.Envelope, send sender) []error {
	half := 0
	if c.Point == midBatch {
		half = len(batch) / 2
	}
	errs := make([]error, 0, len(batch))
	for n, part := range [][]delivery.Envelope{batch[:half], batch[half:]} {
		if len(part) == 0 {
			continue
		}
		sent := send(ctx, part)
		if sent == nil {
			sent = make([]error, len(part))
		}
		for i, err := range sent {
			if err == nil {
				c.log(sendLine, fmt.Sprintf("%s/%d", part[i].ID, part[i].Attempt)) //nolint:errcheck // then there are too few
			}
		}
		errs = append(errs, sent...)
		if n == 0 {
			c.reach(midBatch, &c.progress)
		}
	}
	if c.Stop && c.stopped.CompareAndSwap(false, true) {
		c.log(stopLine, c.Name)                    //nolint:errcheck // then the row waits in vain
		syscall.Kill(os.Getpid(), syscall.SIGSTOP) //nolint:errcheck // it can't fail
		<-time.After(100 * time.Millisecond)       // the signal may take a moment
	}
	return errs
}

// runPublisher publishes the messages, and writes down which were accepted.
func (c *childRun) runPublisher(ctx context.Context) error {
	config := delivery.PublisherConfig{PendingGrace: retryWorkerLease, Logger: c.logger}
	if c.store != nil {
		config.Store = c.store
	}
	publisher, err := delivery.NewPublisher(c.transport, config)
	if err != nil {
		return err
	}
	for i := range c.Publish {
		m := delivery.Message{
			ID: fmt.Sprintf("%s-%d", c.Batch, i), Recipient: "you", Body: make([]byte, 200), Priority: delivery.Priorities()[i%4],
		}
		if err := publisher.Publish(ctx, m); err != nil {
			return err
		}
		if err := c.log(sentLine, m.ID); err != nil {
			return err
		}
	}
	return publisher.Close(ctx)
}
