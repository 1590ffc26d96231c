package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

// PublisherConfig configures a Publisher. The zero value is ready to use.
type PublisherConfig struct {
	// Queue is the queue that the messages belong to: their records have it, and
	// idempotency keys are known within it. Give it the ConsumerConfig.Name of the
	// consumers that take them; publishers of different queues have different ones.
	// At most 255 bytes. Default: the transport's name, if it is a Namer. Required
	// where Store or Idempotency is set.
	Queue string
	// Idempotency, when set, keeps a second message with the same idempotency
	// key from being sent within IdempotencyTTL. Nil sends all of them; consumers
	// with an idempotency store of their own still handle them once.
	Idempotency idempotency.Store
	// IdempotencyTTL is for how long a published key is remembered. Default 24 h.
	IdempotencyTTL time.Duration
	// IdempotencyLease bounds for how long a publisher that died keeps others
	// from publishing the same key. Default 1 min, less than IdempotencyTTL.
	IdempotencyLease time.Duration
	// MaxBodyBytes bounds Message.Body. Default 16 MiB; a transport may have a
	// lower limit of its own.
	MaxBodyBytes int
	// BatchSizeLimit bounds how many messages SendBatch takes. Default 1000.
	BatchSizeLimit int
	// NoBatch switches SendBatch off: it is ErrSwitchedOff then.
	NoBatch bool
	// OnePriority sends every message as Normal, whatever its Priority, which
	// must be valid all the same. Messages that were sent before keep theirs.
	OnePriority bool

	// Store, when set, keeps a record of every message. A message is durable then as
	// soon as it is saved: Publish returns, and the message is sent in the
	// background. What can't be sent a RetryWorker sends, which some process has
	// to run; where none does, make the Store one of RecordsOnly. Call Close at the
	// end. Nil keeps no records.
	Store Store
	// PendingGrace is for how long a saved message is the publisher's to send, and
	// after which a RetryWorker takes over. By that much later a message goes out
	// whose publisher died, or could not reach the transport. Default 1 min, at
	// least 1 s.
	PendingGrace time.Duration
	// MaxOutgoing bounds how many saved messages wait here to be sent, except for
	// those of calls that began at the same time. A call whose messages go beyond
	// it, or beyond 64 MiB of bodies, saves them for RetryWorkers to send at once; the
	// publisher takes back, as it gets to it, what none has taken. Default 1000.
	MaxOutgoing int
	// Metrics takes barid_messages_published_total and barid_publish_seconds.
	// Nil discards.
	Metrics metrics.Recorder
	// Logger: nil discards. Bodies and recipients are never logged.
	Logger *slog.Logger

	settings error // what is wrong with the Settings that were put into it
}

// closeTimeout is how long a Close without a deadline takes at least, if it has
// to: a slow store deserves more than a short grace.
const closeTimeout = 30 * time.Second

func (c PublisherConfig) withDefaults(transport Transport) PublisherConfig {
	if c.Queue == "" && transport != nil {
		c.Queue = nameOf(transport)
	}
	if c.IdempotencyTTL == 0 {
		c.IdempotencyTTL = 24 * time.Hour
	}
	if c.IdempotencyLease == 0 {
		c.IdempotencyLease = time.Minute
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = DefaultMaxBody
	}
	if c.BatchSizeLimit == 0 {
		c.BatchSizeLimit = defaultBatchSizeLimit
	}
	if c.PendingGrace == 0 {
		c.PendingGrace = time.Minute
	}
	if c.MaxOutgoing == 0 {
		c.MaxOutgoing = 1000
	}
	c.Logger = guardedLogger(c.Logger)
	return c
}

func (c PublisherConfig) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: PublisherConfig."+format, append([]any{ErrConfig}, args...)...))
	}
	if c.Queue == "" && (c.Store != nil || c.Idempotency != nil) {
		fault("Queue is empty, and the transport has no name of its own")
	}
	if len(c.Queue) > MaxIDBytes {
		fault("Queue has %d bytes, want at most %d", len(c.Queue), MaxIDBytes)
	}
	if c.IdempotencyLease < 0 {
		fault("IdempotencyLease is %s, want more than 0", c.IdempotencyLease)
	}
	if c.IdempotencyTTL <= c.IdempotencyLease {
		fault("IdempotencyTTL is %s, want more than IdempotencyLease (%s)", c.IdempotencyTTL, c.IdempotencyLease)
	}
	if c.MaxBodyBytes < 0 {
		fault("MaxBodyBytes is %d, want at least 1", c.MaxBodyBytes)
	}
	if c.BatchSizeLimit < 0 {
		fault("BatchSizeLimit is %d, want at least 1", c.BatchSizeLimit)
	}
	if c.PendingGrace < time.Second {
		fault("PendingGrace is %s, want at least 1s", c.PendingGrace)
	}
	if c.MaxOutgoing < 0 {
		fault("MaxOutgoing is %d, want at least 1", c.MaxOutgoing)
	}
	return errors.Join(append(faults, c.settings,
		faultOf("PublisherConfig.Idempotency", c.Idempotency),
		faultOf("PublisherConfig.Store", c.Store))...)
}

// Publisher makes messages durable in a Transport. Any number of goroutines may
// use one, and they should: they share round trips, and none waits for
// another's.
type Publisher struct {
	transport Transport
	config    PublisherConfig
	scope     string
	metrics   publisherMetrics
	calls     *calls
	outbox    *outbox // nil unless messages wait in the store
}

// NewPublisher returns a Publisher over transport, which it does not close. The
// error names every fault of the config.
func NewPublisher(transport Transport, config PublisherConfig) (*Publisher, error) {
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
	publisher := &Publisher{
		transport: transport,
		config:    config,
		scope:     config.Queue + "/publish",
		metrics:   newPublisherMetrics(config.Metrics),
		calls:     newCalls(),
	}
	if schedules(config.Store) {
		publisher.outbox = newOutbox(transport, &config)
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
	return p.publish(ctx, batch, p.validate(batch), begin)
}

// publish publishes a batch, unless it is at fault.
func (p *Publisher) publish(ctx context.Context, batch []Envelope, faults []error, begin time.Time) error {
	errs := faults
	if errs == nil {
		p.setPriorities(batch)
		if p.config.Idempotency == nil {
			errs = p.send(ctx, batch, begin)
		} else {
			errs = p.sendOnce(ctx, batch, begin)
		}
	}
	p.metrics.published(batch, errs, time.Since(begin))
	return publishError(batch, errs)
}

var errPublishIn = fmt.Errorf("%w: PublishIn wants a Saver and PublisherConfig.Store, "+
	"and a RetryWorker that sends what is saved: not a Store of RecordsOnly, which Settings make with Features.RetryWorker off", ErrUnsupported)

// PublishIn is Publish within a transaction of the host: messages are saved by
// saver, and are part of whatever it belongs to, which must end up in
// PublisherConfig.Store.
//
// Call committed when the transaction has been committed, to have the messages
// sent at once. If the process dies before that, or committed is not called, or
// only after Close, a RetryWorker sends them after PendingGrace. Each is looked up in
// the Store before it is sent: after a rollback, also one to a savepoint, nothing is
// left of a message, and nothing is sent. A saver that is a CommittedSaver
// is told by committed, too. Committed is never nil; it may be called from any
// goroutine, and a second call changes nothing.
//
// The outcomes are Publish's. After an error roll back: which of the messages are
// in the transaction is not known.
//
// PublishIn needs a Store, and a RetryWorker, or is ErrUnsupported.
// PublisherConfig.Idempotency is not asked: a repeated ID is saved once. Metrics
// count what is saved, whether or not it is committed.
func (p *Publisher) PublishIn(ctx context.Context, saver Saver, messages ...Message) (committed func(), err error) {
	if err := p.begin(ctx); err != nil {
		return func() {}, err
	}
	defer p.calls.end()
	if p.outbox == nil || saver == nil {
		return func() {}, errPublishIn
	}
	begin := time.Now()
	batch := envelopesOf(messages, begin)
	errs := p.validate(batch)
	var saved savedBatch
	if errs == nil && len(batch) > 0 {
		p.setPriorities(batch)
		errs, saved, _ = p.outbox.save(ctx, saver, batch, begin)
	}
	p.metrics.published(batch, errs, time.Since(begin))
	return sync.OnceFunc(func() {
		p.outbox.committed(saved, begin)
		if watched, ok := saver.(CommittedSaver); ok {
			watched.Committed()
		}
	}), publishError(batch, errs)
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
	errs := p.validate(batch)
	if errs == nil {
		p.setPriorities(batch)
		if p.outbox != nil {
			errs = p.outbox.replay(ctx, batch, begin)
		} else {
			errs = p.send(ctx, batch, begin)
		}
	}
	p.metrics.published(batch, errs, time.Since(begin))
	return errs
}

// Cancel withdraws messages that have not been sent yet: scheduled ones, and
// those between two attempts. Cancelling twice is no error. It is ErrClosed after
// Close, and ctx's error if ctx had ended before. Any other outcome is a
// *ResultsError with a result for each ID, in order: nil; ErrNotFound; ErrLate
// where the message is in the transport, done, or about to be sent; ErrStoreDown
// or a context's error where it may or may not be cancelled.
//
// Of messages with the idempotency key of one that was cancelled, the next one is
// published, as if that had not been. The key is forgotten when the cancelled one's
// is: IdempotencyTTL after that was published.
//
// A message that was sent with an unknown outcome counts as not sent. If it got
// to the transport all the same, it is delivered although it was cancelled, and
// its record stays cancelled.
//
// Cancel needs a Store, or is ErrUnsupported.
func (p *Publisher) Cancel(ctx context.Context, ids ...string) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	defer p.calls.end()
	if len(ids) == 0 {
		return nil
	}
	if p.config.Store == nil {
		return fmt.Errorf("%w: Cancel wants PublisherConfig.Store", ErrUnsupported)
	}
	now := time.Now()
	updates := make([]Update, len(ids))
	for i, id := range ids {
		updates[i] = Update{ID: id, Status: StatusCancelled, At: now}
	}
	_, errs := p.config.Store.Update(ctx, updates...)
	return resultsError(len(ids), func(i int) string { return ids[i] }, eachOf(errs, len(ids)))
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

// setPriorities gives the messages of a batch the priorities that they are sent with.
func (p *Publisher) setPriorities(batch []Envelope) {
	if p.config.OnePriority {
		for i := range batch {
			batch[i].Priority = Normal
		}
	}
}

// validate returns nil when all messages may be sent, or an error for every one.
func (p *Publisher) validate(batch []Envelope) []error {
	var errs []error
	for i := range batch {
		err := p.check(&batch[i].Message)
		if err == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, len(batch))
		}
		errs[i] = err
	}
	for i, err := range errs {
		if err == nil {
			errs[i] = ErrNotSent
		}
	}
	return errs
}

func (p *Publisher) check(message *Message) error {
	err := message.Validate()
	if size := len(message.Body); size > p.config.MaxBodyBytes {
		err = errors.Join(err, &TooLargeError{Field: "Body", Size: size, Limit: p.config.MaxBodyBytes})
	}
	return err
}

func publishError(batch []Envelope, errs []error) error {
	return resultsError(len(batch), func(i int) string { return batch[i].ID }, errs)
}
