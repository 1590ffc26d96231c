package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

// PublisherConfig configures a Publisher. The zero value is ready to use.
type PublisherConfig struct {
	// Idempotency, when set, keeps a second message with the same idempotency
	// key from being sent within IdempotencyTTL. Nil sends them all; consumers
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
	// Metrics takes barid_messages_published_total and barid_publish_seconds.
	// Nil discards.
	Metrics metrics.Recorder
	// Logger: nil discards. Bodies and recipients are never logged.
	Logger *slog.Logger
}

func (c PublisherConfig) withDefaults() PublisherConfig {
	if c.IdempotencyTTL == 0 {
		c.IdempotencyTTL = 24 * time.Hour
	}
	if c.IdempotencyLease == 0 {
		c.IdempotencyLease = time.Minute
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = DefaultMaxBody
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c PublisherConfig) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: PublisherConfig."+format, append([]any{ErrConfig}, args...)...))
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
	return errors.Join(append(faults, faultOf("PublisherConfig.Idempotency", c.Idempotency))...)
}

// Publisher makes messages durable in a Transport. Any number of goroutines may
// use one, and they should: they share round trips, and none waits for
// another's.
type Publisher struct {
	transport Transport
	config    PublisherConfig
	scope     string
	metrics   publisherMetrics
}

// NewPublisher returns a Publisher over transport, which it does not close. The
// error names every fault of the config.
func NewPublisher(transport Transport, config PublisherConfig) (*Publisher, error) {
	config = config.withDefaults()
	fault := config.validate()
	if transport == nil {
		fault = errors.Join(fmt.Errorf("%w: transport is nil", ErrConfig), fault)
	} else {
		fault = errors.Join(faultOf("transport", transport), fault)
	}
	if fault != nil {
		return nil, fault
	}
	return &Publisher{
		transport: transport,
		config:    config,
		scope:     nameOf(transport) + "/publish",
		metrics:   newPublisherMetrics(config.Metrics),
	}, nil
}

// Publish returns nil when every message is durable in the transport. Any other
// outcome is a *PublishError with a result for each message, in order: nil,
// ErrInvalid (then no message of the call was sent, and the valid ones have
// ErrNotSent), ErrDuplicate, ErrInProgress, one of the transport's refusals, or
// ErrOutcomeUnknown. Publishing the same message again, with the same ID, is
// safe after every one of them.
//
// Publish waits no longer than ctx. A message whose NotBefore is still to come
// needs a transport that is a Delayer, or is ErrUnsupported.
func (p *Publisher) Publish(ctx context.Context, messages ...Message) error {
	if p == nil || p.transport == nil {
		return fmt.Errorf("%w: Publisher was not made by NewPublisher", ErrConfig)
	}
	if len(messages) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	begin := time.Now()
	batch := make([]Envelope, len(messages))
	for i := range messages {
		batch[i].Message = messages[i]
		if batch[i].ID == "" {
			batch[i].ID = NewID()
		}
		if batch[i].CreatedAt.IsZero() {
			batch[i].CreatedAt = begin
		}
	}
	errs := p.validate(batch)
	if errs == nil {
		if p.config.Idempotency == nil {
			errs = p.send(ctx, batch, begin)
		} else {
			errs = p.sendOnce(ctx, batch, begin)
		}
	}
	p.metrics.published(batch, errs, time.Since(begin))
	return publishError(batch, errs)
}

// Forward publishes envelopes that have a past: a replay from the dead letters,
// or what was taken over from elsewhere. Generation, Attempt and History are
// sent as they are, and PublisherConfig.Idempotency is not asked. Its outcome is
// that of Publish.
func (p *Publisher) Forward(ctx context.Context, envelopes ...Envelope) error {
	if p == nil || p.transport == nil {
		return fmt.Errorf("%w: Publisher was not made by NewPublisher", ErrConfig)
	}
	if len(envelopes) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	begin := time.Now()
	errs := p.validate(envelopes)
	if errs == nil {
		errs = p.send(ctx, envelopes, begin)
	}
	p.metrics.published(envelopes, errs, time.Since(begin))
	return publishError(envelopes, errs)
}

// validate returns nil when all may be sent, or an error for every one.
func (p *Publisher) validate(batch []Envelope) []error {
	var errs []error
	for i := range batch {
		err := batch[i].Validate()
		if size := len(batch[i].Body); size > p.config.MaxBodyBytes {
			err = errors.Join(err, &TooLargeError{Field: "Body", Size: size, Limit: p.config.MaxBodyBytes})
		}
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

// send gives the batch to the transport: what is due in one call, and one call
// for each time to come.
func (p *Publisher) send(ctx context.Context, batch []Envelope, now time.Time) []error {
	scheduled := false
	for i := range batch {
		scheduled = scheduled || batch[i].NotBefore.After(now)
	}
	if !scheduled {
		return p.transport.Send(ctx, batch)
	}
	delayer, able := p.transport.(Delayer)
	groups := make(map[time.Time][]int)
	for i := range batch {
		due := time.Time{}
		if batch[i].NotBefore.After(now) {
			due = batch[i].NotBefore
		}
		groups[due] = append(groups[due], i)
	}
	errs := make([]error, len(batch))
	for due, members := range groups {
		group := make([]Envelope, len(members))
		for k, i := range members {
			group[k] = batch[i]
		}
		var results []error
		switch {
		case due.IsZero():
			results = p.transport.Send(ctx, group)
		case able:
			results = delayer.SendAfter(ctx, due.Sub(now), group)
		default:
			results = make([]error, len(group))
			for k := range results {
				results[k] = fmt.Errorf("%w: NotBefore in the future", ErrUnsupported)
			}
		}
		for k, err := range results {
			errs[members[k]] = err
		}
	}
	return errs
}

// sendOnce claims the key of each message first, with the message's ID as the
// token: so a duplicate learns whose it is, and a repeated Publish of the same
// message, after an unknown outcome, finds its own claim and goes on.
func (p *Publisher) sendOnce(ctx context.Context, batch []Envelope, now time.Time) []error {
	store := p.config.Idempotency
	errs := make([]error, len(batch))
	keys := make([]string, len(batch))
	first := make(map[string]int, len(batch))
	for i := range batch {
		keys[i] = idempotency.FromID(p.scope, batch[i].Key(), batch[i].Generation).String()
		if _, repeated := first[keys[i]]; !repeated {
			first[keys[i]] = i
		}
	}
	inParallel(len(batch), func(i int) {
		if first[keys[i]] != i {
			return
		}
		answer, err := store.Claim(ctx, keys[i], batch[i].ID, 0, p.config.IdempotencyLease)
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("delivery: claim idempotency key: %w", err)
		case answer.State == idempotency.Claimed:
		case answer.State == idempotency.Busy:
			errs[i] = ErrInProgress
		default:
			errs[i] = &DuplicateError{Of: answer.Holder}
		}
	})
	var claimed []int
	for i := range batch {
		if first[keys[i]] == i && errs[i] == nil {
			claimed = append(claimed, i)
		}
	}
	group := make([]Envelope, len(claimed))
	for k, i := range claimed {
		group[k] = batch[i]
	}
	var results []error
	if len(group) > 0 {
		results = p.send(ctx, group, now)
	}
	// The marks are for others: they are written even when the caller's own
	// deadline has just passed.
	mark, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	inParallel(len(claimed), func(k int) {
		i := claimed[k]
		if results != nil {
			errs[i] = results[k]
		}
		var marked error
		switch {
		case errs[i] == nil:
			_, marked = store.Complete(mark, keys[i], batch[i].ID, p.config.IdempotencyTTL)
		case errors.Is(errs[i], ErrOutcomeUnknown):
			// It may be durable: the claim stays until its lease ends, so that only
			// the same message can be published again meanwhile.
		default:
			marked = store.Release(mark, keys[i], batch[i].ID)
		}
		if marked != nil && !errors.Is(marked, idempotency.ErrLost) {
			p.config.Logger.LogAttrs(ctx, slog.LevelWarn, "publish not recorded in the idempotency store",
				slog.String("message_id", batch[i].ID), slog.Any("error", marked))
		}
	})
	for i := range batch {
		if original := first[keys[i]]; original == i {
			continue
		} else if errs[original] == nil {
			errs[i] = &DuplicateError{Of: batch[original].ID}
		} else {
			errs[i] = errs[original]
		}
	}
	return errs
}

// inParallel calls do for 0 to n-1, many at once: a store that gathers commands
// then answers them in few round trips.
func inParallel(n int, do func(i int)) {
	if n == 1 {
		do(0)
		return
	}
	var group sync.WaitGroup
	var next atomic.Int64
	for range min(n, 64) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	group.Wait()
}

func publishError(batch []Envelope, errs []error) error {
	failed := false
	for _, err := range errs {
		failed = failed || err != nil
	}
	if !failed {
		return nil
	}
	results := make([]PublishResult, len(batch))
	for i := range batch {
		results[i] = PublishResult{ID: batch[i].ID, Err: errs[i]}
	}
	return &PublishError{Results: results}
}

// nameOf is the transport's own name, or else empty.
func nameOf(transport Transport) string {
	if namer, ok := transport.(Namer); ok {
		return namer.Name()
	}
	return ""
}

// faultOf is what a part that was built without an error return has to say
// about its own config.
func faultOf(field string, part any) error {
	if faulty, ok := part.(interface{ Err() error }); ok {
		if err := faulty.Err(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrConfig, field, err)
		}
	}
	return nil
}
