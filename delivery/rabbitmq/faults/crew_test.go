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

// crew is a child at its job.
type crew struct {
	*job
	flow      flow
	file      *os.File
	logger    *slog.Logger
	transport delivery.Transport
	keys      *tappedStore
	records   *records // nil without a database
	stopped   atomic.Bool
	closing   []func() error
}

func (j *job) run(ctx context.Context) error {
	file, err := os.OpenFile(j.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // every line was written at once
	c := &crew{job: j, file: file, logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	defer func() {
		for _, do := range slices.Backward(c.closing) {
			do() //nolint:errcheck // it is over
		}
	}()
	if err := c.open(ctx); err != nil {
		return err
	}
	return c.work(ctx)
}

func (c *crew) write(word, id string) error {
	_, err := c.file.WriteString(word + " " + id + "\n")
	return err
}

func (c *crew) open(ctx context.Context) error {
	if c.InProcess {
		transport := memory.New(memory.Config{Name: c.Name})
		c.closing = append(c.closing, transport.Close)
		c.transport = transport
		c.flow.beforeDeath = c.leaveQueued
	} else {
		transport, err := rabbitmq.Open(ctx, rabbitmq.Config{
			URL: c.AMQP, Name: c.Name, Heartbeat: time.Second, MaxReconnectDelay: time.Second, Logger: c.logger,
		})
		if err != nil {
			return err
		}
		c.closing = append(c.closing, transport.Close)
		c.transport = &tappedTransport{Transport: transport, onSend: c.send}
	}
	c.keys = &tappedStore{}
	c.keys.beforeClaim = func(string) { c.pass(beforeClaim, &c.flow) }
	c.keys.afterClaim = func(string) { c.pass(afterClaim, &c.flow) }
	c.keys.afterComplete = func(key string) {
		c.write(markLine, key) //nolint:errcheck // then there are too few marks
		c.flow.marks.Add(1)
		c.pass(afterMark, &c.flow)
	}
	if c.Database != nil {
		records, err := c.Database.open(ctx, c.logger)
		if err != nil {
			return err
		}
		c.closing = append(c.closing, records.Close)
		c.records, c.keys.Store = records, records.Keys()
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

// leaveQueued waits until some record says that its message waits in this
// process: what was just published says so a little later.
func (c *crew) leaveQueued() {
	for {
		stats, err := c.records.Stats(context.Background())
		if err == nil && stats.Of(delivery.StatusQueued) > 0 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

// work does everything until ctx ends. The retry worker ends last: what waits in
// the process is its to renew while a consumer has it in hand.
func (c *crew) work(ctx context.Context) error {
	var duties []func(context.Context) error
	if c.Publish > 0 {
		duties = append(duties, c.publish)
	}
	if !c.NoConsumer {
		duties = append(duties, c.consume)
	}
	patrolling, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	patrolled := make(chan error, 1)
	go func() { patrolled <- c.patrol(patrolling) }()
	if err := c.write(readyLine, c.Name); err != nil {
		return err
	}
	done := make(chan error, len(duties))
	for _, duty := range duties {
		go func() { done <- duty(ctx) }()
	}
	var faults []error
	for range duties {
		faults = append(faults, <-done)
	}
	if errors.Join(faults...) == nil {
		<-ctx.Done()
	}
	stop()
	return errors.Join(append(faults, <-patrolled)...)
}

func (c *crew) consume(ctx context.Context) error {
	config := delivery.ConsumerConfig{
		Concurrency: c.Concurrency, Prefetch: prefetch,
		HandlerTimeout: time.Minute, DrainTimeout: c.Drain,
		Retry:       retry.Exponential{Base: time.Second, MaxRetries: 3},
		Idempotency: c.keys, IdempotencyLease: c.Lease, IdempotencyWindow: 30 * time.Minute,
		Breaker:     breaker.New(breaker.Config{SampleSize: 500}),
		DeadLetters: noLetters(), Logger: c.logger,
	}
	if c.records != nil {
		config.Store = c.records
	}
	consumer, err := delivery.NewConsumer(c.transport, c.handle, config)
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

// noLetters is a dead-letter store for what has none.
func noLetters() delivery.DeadLetterer {
	return dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{})
}

func (c *crew) handle(ctx context.Context, m delivery.Message) error {
	if c.Work > 0 {
		select {
		case <-time.After(c.Work):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if c.flow.dying.Load() {
		select {} // the end is near
	}
	if err := c.write(effectLine, m.ID); err != nil {
		return err
	}
	c.flow.effects.Add(1)
	c.pass(afterEffect, &c.flow)
	if c.Hold {
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), idempotency.ErrLost) {
			return c.write(lostLine, m.ID)
		}
	}
	return ctx.Err()
}

// patrol runs a RetryWorker if there are records.
func (c *crew) patrol(ctx context.Context) error {
	if c.records == nil {
		return nil
	}
	config := workerConfig(c.logger)
	config.DeadLetters = noLetters()
	store := &tappedRecords{Store: c.records.Store, onUpdate: func(update delivery.Update, err error) {
		if errors.Is(err, delivery.ErrLate) {
			c.write(lateLine, update.ID) //nolint:errcheck // then there are too few
		}
	}}
	worker, err := delivery.NewRetryWorker(store, c.transport, config)
	if err != nil {
		return err
	}
	return worker.Run(ctx)
}

// send sends a batch for the retry worker, dies half-way through it if that is
// the job, and has the process stopped after the first one if it is that.
func (c *crew) send(ctx context.Context, batch []delivery.Envelope, send sender) []error {
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
				c.write(sendLine, fmt.Sprintf("%s/%d", part[i].ID, part[i].Attempt)) //nolint:errcheck // then there are too few
			}
		}
		errs = append(errs, sent...)
		if n == 0 {
			c.pass(midBatch, &c.flow)
		}
	}
	if c.Stop && c.stopped.CompareAndSwap(false, true) {
		c.write(stopLine, c.Name)                  //nolint:errcheck // then somebody waits in vain
		syscall.Kill(os.Getpid(), syscall.SIGSTOP) //nolint:errcheck // it can't fail
		<-time.After(100 * time.Millisecond)       // the signal may take a moment
	}
	return errs
}

// publish publishes so many messages, and writes down which were accepted.
func (c *crew) publish(ctx context.Context) error {
	config := delivery.PublisherConfig{PendingGrace: workLease, Logger: c.logger}
	if c.records != nil {
		config.Store = c.records
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
		if err := c.write(sentLine, m.ID); err != nil {
			return err
		}
	}
	return publisher.Close(ctx)
}
