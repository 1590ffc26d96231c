package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// closeTimeout is how long a Close without a deadline takes at least, if it has
// to: a slow store deserves more than a short grace.
const closeTimeout = 30 * time.Second

// Publisher makes messages durable in a Transport. Any number of goroutines may
// use one, and they should: they share round trips, and none waits for
// another's.
type Publisher struct {
	transport Transport
	config    PublisherConfig
	metrics   publisherMetrics
	calls     *calls
	validator validator
	sender    sender
	outbox    *outbox // the sender's, nil unless messages wait in the store
}

// NewPublisher returns a Publisher over transport, which it does not close. The
// error names every fault of the config.
func NewPublisher(transport Transport, config PublisherConfig) (*Publisher, error) {
	idle := config.idleFields(transport)
	config = config.withDefaults(transport)
	fault := config.validate()
	if transport == nil {
		fault = errors.Join(fmt.Errorf("%w: transport is nil", ErrConfig), fault)
	} else {
		fault = errors.Join(faultOf("transport", transport), fault)
	}
	if fault != nil {
		return nil, fault
	}
	warnOfIdle(config.Logger, idle)
	publisher := &Publisher{
		transport: transport,
		config:    config,
		metrics:   newPublisherMetrics(config.Metrics),
		calls:     newCalls(),
		validator: newValidator(&config),
	}
	if schedules(config.Store) {
		publisher.outbox = newOutbox(transport, &config)
		publisher.sender = publisher.outbox
	} else {
		publisher.sender = newDirectSender(transport, &config)
	}
	if config.Idempotency != nil {
		publisher.sender = newDeduplicator(publisher.sender, &config)
	}
	return publisher, nil
}

// Publish returns nil when every message is durable: confirmed by the transport,
// or with a Store, saved. It is ErrClosed after Close, and ctx's error if ctx had
// ended before; nothing was sent then. Any other outcome is a *ResultsError with a
// result for each message, in order:
//
//   - nil: it is durable
//   - ErrInvalid: it can't be sent; then no message of the call was sent, and the
//     valid ones have ErrNotSent
//   - ErrDuplicate, ErrInProgress: PublisherConfig.Idempotency knows its key
//   - what the idempotency store failed with: it was not sent
//   - what the transport refused it with, ErrUnroutable for one: it was not sent
//   - ErrOutcomeUnknown: it may or may not be durable, because transport, store or
//     ctx failed in the middle. With a Store, errors.Is finds that cause too
//     (ErrStoreDown, or the context's), and if it was saved, a RetryWorker sends
//     it after PendingGrace
//
// Publishing the same message again, with the same ID, is safe after every one
// of them. With a Store, a message whose ID has a record is not saved again and
// not sent again, whatever has become of it, and the result is nil. There is one
// exception, so that no caller has to wait for a RetryWorker: what this Publisher
// had saved with an unknown outcome it sends, as it was saved.
//
// Without a Store a message whose NotBefore is still to come needs a transport
// that is a Delayer, or is ErrUnsupported. A Store of RecordsOnly counts as none in
// all of this: it gets a record of what the transport has confirmed.
//
// Publish waits for transport and stores no longer than ctx. After that it
// completes or releases the idempotency keys, for which it takes 5 s more at most,
// and saves the records in a Store of RecordsOnly, for which it takes 10 s at most.
func (p *Publisher) Publish(ctx context.Context, messages ...Message) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	defer p.calls.end()
	if len(messages) == 0 {
		return nil
	}
	begin := time.Now()
	batch := envelopesOf(messages, begin)
	errs := p.validator.accept(batch)
	if errs == nil {
		errs = p.sender.publish(ctx, batch, begin)
	}
	p.metrics.published(batch, errs, time.Since(begin))
	return publishError(batch, errs)
}

// Forward publishes envelopes that have a past: a replay from the dead letters,
// or messages that are taken over from another system. Generation, Attempt and
// History are sent as they are, and PublisherConfig.Idempotency is not asked. The
// outcomes are Publish's; IDs are required. With a Store and a RetryWorker, an
// envelope whose record has got as far as its generation already, or is done, is
// not sent again, and the result is nil.
func (p *Publisher) Forward(ctx context.Context, envelopes ...Envelope) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	defer p.calls.end()
	if len(envelopes) == 0 {
		return nil
	}
	return publishError(envelopes, p.forward(ctx, slices.Clone(envelopes)))
}

// forward returns an error for each envelope of a batch, which it changes, or nil.
func (p *Publisher) forward(ctx context.Context, batch []Envelope) []error {
	begin := time.Now()
	for i := range batch {
		batch[i].ExpiresAt = expiry(batch[i].ExpiresAt)
	}
	errs := p.validator.accept(batch)
	if errs == nil {
		errs = p.sender.replay(ctx, batch, begin)
	}
	p.metrics.published(batch, errs, time.Since(begin))
	return errs
}

// Close waits until the calls that have begun are over. With a Store it also waits
// until what was published is sent and recorded, or left to RetryWorkers because
// the transport can't be reached. From its beginning on every call is ErrClosed,
// with or without a Store. It closes neither transport nor store, which it needs
// until it returns.
//
// Close waits until ctx ends; if ctx has no deadline, for PendingGrace, or for 30 s
// if that is longer: from then on RetryWorkers see to everything anyway. Its error
// is the context's then (context.DeadlineExceeded after that time), joined with the
// store's if that is what kept it. Nothing is lost by that: what remains
// RetryWorkers send, and what was sent without being recorded they send once more.
// What goes on in the background is broken off; calls that have begun are not.
//
// Closing again is no error.
func (p *Publisher) Close(ctx context.Context) error {
	if p == nil || p.transport == nil {
		return nil
	}
	if _, bounded := ctx.Deadline(); !bounded {
		// After the grace RetryWorkers see to everything, and to record that it was
		// sent comes too late.
		limited, cancel := context.WithTimeout(ctx, max(p.config.PendingGrace, closeTimeout))
		defer cancel()
		ctx = limited
	}
	err := p.calls.close(ctx)
	if p.outbox == nil {
		return err
	}
	if err == nil {
		err = p.outbox.finish(ctx)
	}
	failure := p.outbox.end()
	switch {
	case err == nil:
		return nil
	case failure == nil:
		return ctx.Err()
	}
	return errors.Join(ctx.Err(), failure)
}

// begin says why a call can't begin. Unless it returns an error, the call has to
// end by p.calls.end.
func (p *Publisher) begin(ctx context.Context) error {
	switch {
	case p == nil || p.transport == nil:
		return fmt.Errorf("%w: Publisher was not made by NewPublisher", ErrConfig)
	case !p.calls.begin():
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		p.calls.end()
		return err
	}
	return nil
}

// envelopesOf fills in what the caller may leave out.
func envelopesOf(messages []Message, now time.Time) []Envelope {
	batch := make([]Envelope, len(messages))
	for i := range messages {
		batch[i].Message = messages[i]
		if batch[i].ID == "" {
			batch[i].ID = NewID()
		}
		if batch[i].CreatedAt.IsZero() {
			batch[i].CreatedAt = now
		}
		batch[i].ExpiresAt = expiry(batch[i].ExpiresAt)
	}
	return batch
}
