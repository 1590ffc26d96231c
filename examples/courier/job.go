// Package courier is the job that the examples quickstart and rabbitmq run: it
// publishes messages of mixed priority, delivers them through a provider that
// fails in every usual way, mends what can be mended among the dead letters and
// sends that again, and then settles the ledger: what the provider took, against
// what was published.
//
// It is also a picture of a host: handler.go and job.go are about what an
// application has to write.
package courier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// Config says what the job runs on.
type Config struct {
	// Transport carries the messages. The job does not close it.
	Transport delivery.Transport
	// Idempotency suppresses duplicates.
	Idempotency idempotency.Store
	// Messages is how many to publish. Default 2,000.
	Messages int
	// Patience is how long to wait for the end of each part. Default 2 min.
	Patience time.Duration
	// Output takes what is shown. Default os.Stdout.
	Output io.Writer
	// Logger takes what the pipeline logs. Nil discards.
	Logger *slog.Logger
}

// ErrLedger is returned by Run when a message was lost or delivered twice.
var ErrLedger = errors.New("courier: the ledger does not balance")

// Run runs the job, shows how it goes and what came of it.
func Run(ctx context.Context, config Config) error {
	if config.Messages == 0 {
		config.Messages = 2000
	}
	if config.Patience == 0 {
		config.Patience = 2 * time.Minute
	}
	if config.Output == nil {
		config.Output = os.Stdout
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	provider, err := StartProvider(config.Messages / 3)
	if err != nil {
		return err
	}
	defer func() { _ = provider.Close() }()

	j := &job{config: config, provider: provider, collector: metrics.NewCollector(metrics.CollectorConfig{})}
	return j.run(ctx)
}

type job struct {
	config    Config
	provider  *Provider
	collector *metrics.Collector
	letters   *dlq.Manager
	breaker   *breaker.Breaker
	published atomic.Int64 // messages, each counted once
}

func (j *job) run(ctx context.Context) error {
	publisher, err := delivery.NewPublisher(j.config.Transport, delivery.PublisherConfig{
		Metrics: j.collector,
		Logger:  j.config.Logger,
	})
	if err != nil {
		return err
	}
	j.letters = dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), publisher, dlq.Config{Metrics: j.collector})
	j.breaker = breaker.New(breaker.Config{Name: "provider", SampleSize: 20, OpenFor: 300 * time.Millisecond})
	consumer, err := delivery.NewConsumer(j.config.Transport, NewHandler(j.provider.URL), delivery.ConsumerConfig{
		Concurrency:    32,
		HandlerTimeout: 250 * time.Millisecond,
		DrainTimeout:   5 * time.Second,
		Retry:          retry.Exponential{Base: 200 * time.Millisecond, Max: 2 * time.Second, MaxRetries: 6, Jitter: retry.JitterFull},
		Idempotency:    j.config.Idempotency,
		Breaker:        j.breaker,
		DeadLetters:    j.letters,
		Metrics:        j.collector,
		Logger:         j.config.Logger,
	})
	if err != nil {
		return err
	}

	consuming, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(consuming) }()

	messages := compose(j.config.Messages)
	publishing := make(chan error, 1)
	go func() { publishing <- j.publish(ctx, publisher, messages) }()

	show := newProgress(j.config.Output, len(messages))
	settled := func(ctx context.Context) (bool, error) { return j.settled(ctx, messages) }
	err = j.await(ctx, show, publishing, ended, settled)
	show.finish()
	if err != nil {
		return err
	}
	fmt.Fprintln(j.config.Output)
	first, err := j.stats(ctx)
	if err != nil {
		return err
	}
	showTable(j.config.Output, j.collector.Snapshot(), len(messages), len(j.provider.Effects()), first)

	requeued, err := j.mend(ctx)
	if err != nil {
		return err
	}
	if err := j.await(ctx, nil, nil, ended, settled); err != nil {
		return err
	}
	stop()
	if err := <-ended; err != nil {
		return err
	}
	return j.settle(ctx, messages, requeued)
}

// compose makes messages of mixed priority, for numbers of which a few are
// unknown or blocked.
func compose(n int) []delivery.Message {
	priorities := delivery.Priorities()
	messages := make([]delivery.Message, n)
	for i := range messages {
		messages[i] = delivery.Message{
			ID:        delivery.NewID(),
			Recipient: fmt.Sprintf("+9665%08d", i),
			Type:      "sms.reminder",
			Body:      []byte("Your appointment is tomorrow. Ref " + strconv.Itoa(i)),
			Priority:  priorities[i%len(priorities)],
		}
	}
	return messages
}

// publish publishes in small calls, as requests come in, and now and then twice:
// a caller that saw no answer publishes again, with the same ID.
func (j *job) publish(ctx context.Context, publisher *delivery.Publisher, messages []delivery.Message) error {
	const step = 25
	for i := 0; i < len(messages); i += step {
		part := messages[i:min(i+step, len(messages))]
		if err := publisher.Publish(ctx, part...); err != nil {
			return err
		}
		j.published.Add(int64(len(part)))
		if err := publisher.Publish(ctx, part[0]); err != nil {
			return err
		}
	}
	return nil
}

// await waits until all is published and settled.
func (j *job) await(ctx context.Context, show *progress, publishing, consuming <-chan error, settled func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, j.config.Patience, fmt.Errorf("courier: not done after %s", j.config.Patience))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-consuming:
			return fmt.Errorf("courier: the consumer ended early: %w", err)
		case err := <-publishing:
			if err != nil {
				return err
			}
			publishing = nil
		case <-tick.C:
			stats, err := j.stats(ctx)
			if err != nil {
				return err
			}
			show.update(j.provider.Accepted(), stats.Total, j.collector.Snapshot(), j.breaker.State())
			if publishing != nil {
				continue
			}
			done, err := settled(ctx)
			if err != nil || done {
				return err
			}
		}
	}
}

// settled says whether every message is delivered or a dead letter, and nothing
// waits in the queues any more.
func (j *job) settled(ctx context.Context, messages []delivery.Message) (bool, error) {
	stats, err := j.stats(ctx)
	if err != nil {
		return false, err
	}
	if len(j.provider.Effects())+stats.Total < len(messages) {
		return false, nil
	}
	depther, ok := j.config.Transport.(delivery.Depther)
	if !ok {
		return true, nil
	}
	depths, err := depther.Depth(ctx)
	if err != nil {
		return false, nil //nolint:nilerr // the transport is away for a moment: ask again
	}
	for _, depth := range depths {
		if depth.Messages > 0 {
			return false, nil
		}
	}
	return true, nil
}

func (j *job) stats(ctx context.Context) (dlq.Stats, error) { return j.letters.Stats(ctx) }

// entries returns all dead letters, page by page.
func (j *job) entries(ctx context.Context) ([]dlq.Entry, error) {
	var entries []dlq.Entry
	query := dlq.Query{Limit: 500}
	for {
		page, err := j.letters.List(ctx, query)
		if err != nil {
			return nil, err
		}
		entries = append(entries, page.Entries...)
		if query.Cursor = page.Next; query.Cursor == "" {
			return entries, nil
		}
	}
}

// mend does what an operator does: it looks through the dead letters, sees to
// what can be mended, here numbers that were not registered and messages that
// had bad luck too often, and requeues those. It returns how many.
func (j *job) mend(ctx context.Context) (int, error) {
	entries, err := j.entries(ctx)
	if err != nil {
		return 0, err
	}
	var mendable []string
	for _, entry := range entries {
		number := entry.Envelope.Recipient
		switch {
		case isBlocked(number):
			continue
		case isUnknown(number):
			j.provider.Register(number)
		}
		mendable = append(mendable, entry.ID)
	}
	if _, err := j.letters.Requeue(ctx, mendable...); err != nil {
		return 0, err
	}
	fmt.Fprintf(j.config.Output, "\nmended and requeued %d dead letters\n", len(mendable))
	return len(mendable), nil
}

// settle settles the ledger: every message that was published is among the
// provider's effects, once, or among the dead letters.
func (j *job) settle(ctx context.Context, messages []delivery.Message, requeued int) error {
	effects := j.provider.Effects()
	entries, err := j.entries(ctx)
	if err != nil {
		return err
	}
	dead := map[string]bool{}
	for _, entry := range entries {
		dead[entry.Envelope.ID] = true
	}
	delivered, lost, duplicates := 0, 0, 0
	for _, message := range messages {
		switch count := effects[message.ID]; {
		case count > 0:
			delivered++
			duplicates += count - 1
		case !dead[message.ID]:
			lost++
		}
	}
	fmt.Fprintf(j.config.Output, "ledger: %d published = %d delivered (some of the %d requeued among them) + %d dead letters kept + %d lost\n",
		len(messages), delivered, requeued, len(dead), lost)
	fmt.Fprintf(j.config.Output, "demo: published=%d delivered=%d dead_lettered=%d requeued=%d lost=%d duplicates=%d\n",
		len(messages), delivered, len(dead), requeued, lost, duplicates)
	if lost != 0 || duplicates != 0 {
		return ErrLedger
	}
	return nil
}
