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

// MaxCollectorBatch bounds CollectorConfig.Batch.
const MaxCollectorBatch = 1000

// CollectorConfig configures a Collector. The zero value is ready to use.
type CollectorConfig struct {
	// Batch is how many letters go to the sink in one call at most. Twice as many
	// are in hand. Default 100, at most 1000.
	Batch int
	// Timeout bounds one call of the sink. Default 30 s.
	Timeout time.Duration
	// MaxRetryDelay bounds the pause after a call that failed, which grows from
	// some 100 ms and is jittered. Default 30 s.
	MaxRetryDelay time.Duration
	// Source signs the letters that no consumer gave up. Default: the transport's
	// name.
	Source string
	// Logger is told of each call that failed, as the event
	// rabbitmq_collect_failed. Nil means the transport's.
	Logger *slog.Logger
}

func (c CollectorConfig) validate() error {
	var faults []error
	if c.Batch < 1 || c.Batch > MaxCollectorBatch {
		faults = append(faults, fmt.Errorf("%w: CollectorConfig.Batch is %d, want 1 to %d", ErrConfig, c.Batch, MaxCollectorBatch))
	}
	for field, value := range map[string]time.Duration{"Timeout": c.Timeout, "MaxRetryDelay": c.MaxRetryDelay} {
		if value <= 0 {
			faults = append(faults, fmt.Errorf("%w: CollectorConfig.%s is %s, want more than 0", ErrConfig, field, value))
		}
	}
	return errors.Join(faults...)
}

// Collector moves what waits in the dead letter queue into a store of dead
// letters. It acks only what the store has confirmed, so that nothing is lost
// when either of them goes down, or the process.
//
// What the broker dead-letters becomes a letter with the reason
// delivery.ReasonBroker, the broker's own in its Error, and more in its Facts,
// see FactReason. Letters that Transport.DeadLetter put into the queue come out
// as they were. What is no message of ours has delivery.ReasonMalformed and its
// body in Raw.
//
// A letter's ID is the same each time that it comes, so that the store replaces
// it. That holds for a message of ours by its ID and generation, so that copies
// are one letter; for a foreign one by all that it consists of and the second of
// its death, so that two of them which differ in nothing are one letter, too.
//
// Any number of Collectors may share the queue.
type Collector struct {
	transport *Transport
	sink      delivery.DeadLetterer
	config    CollectorConfig
	sources   []source
}

// NewCollector returns a Collector over transport, which it does not close.
// The error is ErrConfig and names every fault.
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
		// It would send every letter back to where it came from.
		if sink.Topology().DeadLetter == topology.DeadLetter {
			fault("sink is the transport's own dead letter queue, want another store")
		}
	case interface{ Err() error }:
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
	return &Collector{
		transport: transport,
		sink:      sink,
		config:    config,
		sources:   []source{{queue: topology.DeadLetterQueue, label: "dead"}},
	}, nil
}

// Run collects until ctx ends, and then returns nil. What is not acked by then
// goes back to the queue. Before that it returns an error only if it can't
// start, or when the transport was closed under it: delivery.ErrClosed. It
// survives outages of the broker and the sink.
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

// collect puts batch after batch. After a failure the next is half as large, so
// that a letter that the sink never takes is found out, and is put behind the
// others when it is: it stays in hand, and does not keep them from going on.
func (c *Collector) collect(ctx context.Context, subscription *Subscription) error {
	var hand []*incoming
	size := c.config.Batch
	pause := newPause(c.config.MaxRetryDelay)
	for {
		var err error
		if hand, err = gather(ctx, subscription, hand); err != nil {
			return err
		}
		batch := hand[:min(size, len(hand))]
		err = c.put(ctx, batch)
		if err == nil {
			for _, in := range batch {
				in.Ack() //nolint:errcheck // a stale one comes again, and is put again
			}
			hand = hand[len(batch):]
			size = min(2*size, c.config.Batch)
			pause.exponential.Reset()
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		delay := pause.next(false)
		c.config.Logger.LogAttrs(ctx, slog.LevelWarn, "rabbitmq_collect_failed",
			slog.Int("letters", len(batch)), slog.Duration("retry_in", delay), slog.Any("error", err))
		if len(batch) == 1 {
			hand = append(hand[1:], batch[0])
		}
		size = max(1, len(batch)/2)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		case <-subscription.done:
		}
	}
}

// gather adds what has arrived to what is in hand and not stale. It waits if that
// is nothing.
func gather(ctx context.Context, subscription *Subscription, hand []*incoming) ([]*incoming, error) {
	hand = slices.DeleteFunc(hand, func(in *incoming) bool { return in.stream.isStale() })
	arrived := subscription.collect()
	if len(hand)+len(arrived) == 0 {
		var err error
		if arrived, err = subscription.Receive(ctx); err != nil {
			return nil, err
		}
	}
	for _, in := range arrived {
		hand = append(hand, in.(*incoming))
	}
	return hand, ctx.Err()
}

func (c *Collector) put(ctx context.Context, batch []*incoming) error {
	letters := make([]delivery.DeadLetter, len(batch))
	for i, in := range batch {
		letters[i] = c.letter(in.stream.limits, &in.delivery)
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	return c.sink.DeadLetter(ctx, letters...)
}

// letter is what the sink gets for a delivery.
func (c *Collector) letter(l limits, d *amqp.Delivery) delivery.DeadLetter {
	envelope, err := l.decode(d)
	var malformed *delivery.MalformedError
	if errors.As(err, &malformed) {
		envelope = &malformed.Envelope
	}
	if letter, ok := l.decodeLetter(d, envelope); ok {
		return letter
	}
	death := deathOf(d.Headers)
	letter := delivery.DeadLetter{
		Envelope: *envelope,
		Reason:   delivery.ReasonBroker,
		Error:    death.String(),
		Source:   c.config.Source,
		At:       death.at,
		Facts:    death.facts,
	}
	if letter.At.IsZero() {
		letter.At = time.Now()
	}
	if malformed == nil {
		letter.ID = letterID(c.transport.config.Name, envelope)
		return letter
	}
	letter.ID = foreignID(c.transport.config.Name, d)
	letter.Reason = delivery.ReasonMalformed
	letter.Error = malformed.Error()
	letter.Raw, letter.Envelope.Body = d.Body, nil
	return letter
}
