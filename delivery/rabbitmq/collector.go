package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// unroutableLabel tells the source of what found no queue.
const unroutableLabel = "unroutable"

// maxCollectorBatch bounds CollectorConfig.Batch.
const maxCollectorBatch = 1000

// CollectorConfig configures a Collector. The zero value is ready to use.
type CollectorConfig struct {
	// Batch is how many dead letters go to the sink in one call at most. Twice as
	// many are fetched. Default 100, at most 1000.
	Batch int
	// Timeout bounds one call of the sink. Default 30 s.
	Timeout time.Duration
	// MaxRetryDelay bounds the wait after a call that failed. It doubles from 100 ms
	// on, and is jittered. Default 30 s.
	MaxRetryDelay time.Duration
	// Source is the Source of those dead letters that have none: all but those of
	// Transport.DeadLetter. Default: the transport's name.
	Source string
	// Logger logs each call that failed, as the event "dead letters not collected". Nil
	// means the transport's.
	Logger *slog.Logger
}

func (c CollectorConfig) validate() error {
	var faults []error
	if c.Batch < 1 || c.Batch > maxCollectorBatch {
		faults = append(faults, fmt.Errorf("%w: CollectorConfig.Batch is %d, want 1 to %d", ErrConfig, c.Batch, maxCollectorBatch))
	}
	for field, value := range map[string]time.Duration{"Timeout": c.Timeout, "MaxRetryDelay": c.MaxRetryDelay} {
		if value <= 0 {
			faults = append(faults, fmt.Errorf("%w: CollectorConfig.%s is %s, want more than 0", ErrConfig, field, value))
		}
	}
	return errors.Join(faults...)
}

// Collector moves dead letters from the dead-letter queue into a store, and so it
// does with delayed messages that found no queue when they were due
// (Topology.UnroutableQueue), which it also logs as "unroutable messages found". It acks a
// message only when the store has confirmed its letter, so that nothing is lost
// when the store, the broker or the process goes down.
//
// A message that the broker dead-lettered becomes a letter with the reason
// delivery.ReasonBroker. The broker's reason is in its Error, and more in its
// Facts, see FactReason. A letter of Transport.DeadLetter is as it was. What is no
// message of ours has the reason delivery.ReasonMalformed and its body in Raw.
//
// A letter that comes again has the same ID, so that the store replaces it. The ID
// of a message of ours is made of the message and its generation, so that its copies
// are one letter, and another message with the same ID is another one. That of a
// foreign message is made of all that the message consists of, and of the time when
// it was dead-lettered, in whole seconds; two that are equal in all of it are one
// letter.
//
// Nothing that was published to the work queues can pass for a letter of
// Transport.DeadLetter. What is published to the dead-letter exchange can: allow it
// to nobody but the processes that share the transport's name.
//
// Any number of Collectors may share the queues.
type Collector struct {
	transport *Transport
	sink      delivery.DeadLetterer
	config    CollectorConfig
	sources   []source
}

// NewCollector returns a Collector over transport, which it does not close.
// The error is ErrConfig and names every field at fault.
func NewCollector(transport *Transport, sink delivery.DeadLetterer, config CollectorConfig) (*Collector, error) {
	defaultTo(&config.Batch, 100)
	defaultTo(&config.Timeout, 30*time.Second)
	defaultTo(&config.MaxRetryDelay, 30*time.Second)
	defaultTo(&config.Source, transport.Name())
	faults := []error{config.validate()}
	fault := func(problem string) {
		faults = append(faults, fmt.Errorf("%w: %s", ErrConfig, problem))
	}
	topology := transport.Topology()
	switch {
	case transport == nil || transport.life == nil:
		fault("transport was not made by Open")
	case topology.DeadLetterQueue == "":
		fault("Topology.DeadLetterQueue is empty, there is nothing to collect from")
	}
	switch sink := sink.(type) {
	case nil:
		fault("sink is nil, want a store of dead letters")
	case *Transport:
		// It would publish every letter to the queue that it came from.
		if sink.Topology().DeadLetter == topology.DeadLetter {
			fault("sink is the transport's own dead letter queue, want another store")
		}
	case delivery.FaultReporter:
		if err := sink.Err(); err != nil {
			faults = append(faults, fmt.Errorf("%w: sink: %w", ErrConfig, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = transport.config.Logger
	}
	sources := []source{{queue: topology.DeadLetterQueue, label: "dead"}}
	if topology.UnroutableQueue != "" {
		// A topology of the host's may be without it.
		declared := slices.ContainsFunc(topology.Queues, func(q Queue) bool { return q.Name == topology.UnroutableQueue })
		sources = append(sources, source{queue: topology.UnroutableQueue, label: unroutableLabel, leftover: !declared})
	}
	return &Collector{
		transport: transport,
		sink:      sink,
		config:    config,
		sources:   sources,
	}, nil
}

// Run collects until ctx ends, and then returns nil. The broker takes back what is
// not acked by then. Run survives outages of the broker and the sink. It returns an
// error only if it can't start, and delivery.ErrClosed when the transport is closed
// before ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	if c == nil || c.transport == nil {
		return fmt.Errorf("%w: Collector was not made by NewCollector", ErrConfig)
	}
	if c.transport.closing.Load() {
		return delivery.ErrClosed
	}
	subscription, err := c.transport.subscribe(ctx, c.sources, 2*c.config.Batch)
	if err != nil {
		return err
	}
	defer subscription.Close() //nolint:errcheck // returns nil
	err = c.collect(ctx, subscription)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// collect stores batch after batch. After a failure the next batch is half as
// large, until a letter that the sink refuses is alone in its batch. Then it goes
// behind the others, so that it is tried again without keeping them waiting.
func (c *Collector) collect(ctx context.Context, subscription *subscription) error {
	var held []*incoming
	size := c.config.Batch
	delay := newReconnectDelay(c.config.MaxRetryDelay)
	for {
		var err error
		if held, err = fetch(ctx, subscription, held); err != nil {
			return err
		}
		batch := held[:min(size, len(held))]
		err = c.store(ctx, batch)
		if err == nil {
			for _, in := range batch {
				in.Ack() //nolint:errcheck // a stale one comes again, and is stored again
			}
			held = held[len(batch):]
			size = min(2*size, c.config.Batch)
			delay.reset()
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := delay.next(false)
		c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "dead letters not collected",
			slog.Int("letters", len(batch)), slog.Duration("retry_in", wait), slog.Any("error", err))
		if len(batch) == 1 {
			held = append(held[1:], batch[0])
		}
		size = max(1, len(batch)/2)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		case <-subscription.done:
		}
	}
}

// fetch adds what has arrived to what is held and not stale. It waits if that is
// nothing.
func fetch(ctx context.Context, subscription *subscription, held []*incoming) ([]*incoming, error) {
	held = slices.DeleteFunc(held, func(in *incoming) bool { return in.channel.isStale() })
	arrived := subscription.ready.take()
	if len(held)+len(arrived) == 0 {
		var err error
		if arrived, err = subscription.Receive(ctx); err != nil {
			return nil, err
		}
	}
	for _, in := range arrived {
		held = append(held, in.(*incoming))
	}
	return held, ctx.Err()
}

// store passes a batch to the sink, as dead letters.
func (c *Collector) store(ctx context.Context, batch []*incoming) error {
	letters := make([]delivery.DeadLetter, len(batch))
	unroutable := 0
	for i, in := range batch {
		foundNoQueue := in.channel.source.label == unroutableLabel
		letters[i] = c.letter(in.channel.limits, &in.delivery, foundNoQueue)
		if foundNoQueue {
			unroutable++
		}
	}
	limited, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	err := c.sink.DeadLetter(limited, letters...)
	if err == nil && unroutable > 0 {
		c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "unroutable messages found", slog.Int("letters", unroutable))
	}
	return err
}

// letter is the dead letter of a delivery.
func (c *Collector) letter(l limits, d *amqp.Delivery, foundNoQueue bool) delivery.DeadLetter {
	envelope, err := l.decode(d)
	var malformed *delivery.MalformedError
	if errors.As(err, &malformed) {
		envelope = &malformed.Envelope
	}
	if letter, ok := l.decodeLetter(d, envelope); ok && !foundNoQueue {
		return letter
	}
	xdeath := parseXDeath(d.Headers)
	if foundNoQueue {
		xdeath = noQueue(d)
	}
	letter := delivery.DeadLetter{
		Envelope: *envelope,
		Reason:   delivery.ReasonBroker,
		Error:    xdeath.String(),
		Source:   c.config.Source,
		At:       xdeath.at,
		Facts:    xdeath.facts,
	}
	if letter.At.IsZero() {
		letter.At = time.Now()
	}
	if malformed == nil {
		letter.ID = letterID(c.transport.config.Name, envelope, d.Headers)
		return letter
	}
	letter.ID = foreignID(c.transport.config.Name, d)
	letter.Reason = delivery.ReasonMalformed
	letter.Error = malformed.Error()
	letter.Raw, letter.Envelope.Body = d.Body, nil
	return letter
}
