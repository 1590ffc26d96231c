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
)

// finishKeysTimeout bounds how long the keys of a batch are completed or released
// after it was sent.
const finishKeysTimeout = 5 * time.Second

// deduplicator is a sender that sends a message only if its idempotency key is new.
// Of a replay it asks nothing.
type deduplicator struct {
	sender

	keys    idempotency.Store
	scope   string // of the keys
	lease   time.Duration
	ttl     time.Duration
	records Store // or nil
	logger  *slog.Logger
}

func newDeduplicator(next sender, config *PublisherConfig) *deduplicator {
	return &deduplicator{
		sender: next, keys: config.Idempotency, scope: config.Queue + "/publish", lease: config.IdempotencyLease, ttl: config.IdempotencyTTL,
		records: config.Store, logger: config.Logger,
	}
}

// keyedBatch is a batch on its way past the idempotency store, and what has become
// of each message.
type keyedBatch struct {
	envelopes []Envelope
	keys      []string
	first     []int // the place of the first message of the batch with the same key
	errs      []error
}

// publish claims the idempotency key of each message, sends those whose keys it
// got, and completes or releases the keys.
func (d *deduplicator) publish(ctx context.Context, batch []Envelope, now time.Time) []error {
	b := d.keyed(batch)
	claimed := d.claimKeys(ctx, b)
	if len(claimed) > 0 {
		group := make([]Envelope, len(claimed))
		for k, i := range claimed {
			group[k] = batch[i]
		}
		for k, err := range d.sender.publish(ctx, group, now) {
			b.errs[claimed[k]] = err
		}
		d.finishKeys(ctx, b, claimed)
	}
	b.answerRepeated()
	return b.errs
}

func (d *deduplicator) keyed(batch []Envelope) *keyedBatch {
	b := &keyedBatch{
		envelopes: batch,
		keys:      make([]string, len(batch)),
		first:     make([]int, len(batch)),
		errs:      make([]error, len(batch)),
	}
	places := make(map[string]int, len(batch))
	for i := range batch {
		key := idempotency.FromID(d.scope, batch[i].Key(), batch[i].Generation).String()
		first, repeated := places[key]
		if !repeated {
			first = i
			places[key] = i
		}
		b.keys[i], b.first[i] = key, first
	}
	return b
}

// claimKeys claims each key once, and returns the places of the messages whose
// keys it got. The token is the message's ID: so a duplicate learns of which
// message it is one, and a repeated Publish of the same message, after an unknown
// outcome, finds its own claim and goes on.
func (d *deduplicator) claimKeys(ctx context.Context, b *keyedBatch) (claimed []int) {
	inParallel(len(b.keys), func(i int) {
		if b.first[i] != i {
			return
		}
		b.keys[i], b.errs[i] = d.claimKey(ctx, &b.envelopes[i])
	})
	for i, err := range b.errs {
		if b.first[i] == i && err == nil {
			claimed = append(claimed, i)
		}
	}
	return claimed
}

// claimKey claims the key of an envelope, and returns it as the store has it. A key
// that is done stays done, but where the message that has it was cancelled the
// next one has the key after that message, which again only one can have.
func (d *deduplicator) claimKey(ctx context.Context, envelope *Envelope) (string, error) {
	key := idempotency.FromID(d.scope, envelope.Key(), envelope.Generation)
	for {
		name := key.String()
		answer, err := d.keys.Claim(ctx, name, envelope.ID, 0, d.lease)
		switch {
		case err != nil:
			return name, fmt.Errorf("delivery: claim idempotency key: %w", err)
		case answer.State == idempotency.Claimed:
			return name, nil
		case answer.State == idempotency.Busy:
			return name, ErrInProgress
		case answer.Holder == envelope.ID:
			return name, &DuplicateError{Of: envelope.ID}
		}
		gone, err := cancelled(ctx, d.records, answer.Holder)
		switch {
		case err != nil:
			return name, fmt.Errorf("delivery: look up the message that has the idempotency key: %w", err)
		case !gone:
			return name, &DuplicateError{Of: answer.Holder}
		}
		key.Scope = afterScope(key.Scope, answer.Holder)
	}
}

// afterScope is the scope of a key after the message that has it within scope was
// cancelled.
func afterScope(scope, id string) string { return scope + "/after/" + id }

// cancelled says whether the message was cancelled, as far as there is a record.
func cancelled(ctx context.Context, store Store, id string) (bool, error) {
	if store == nil || id == "" {
		return false, nil
	}
	records, errs := getEach(ctx, store, id)
	if err := errs[0]; unanswered(err) {
		return false, err
	}
	return records[0].Status == StatusCancelled, nil
}

// finishKeys completes the keys of what was sent and releases those of what was
// not. Other publishers wait for that, so it is done even when the caller's own
// deadline has just passed.
func (d *deduplicator) finishKeys(ctx context.Context, b *keyedBatch, claimed []int) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishKeysTimeout)
	defer cancel()
	inParallel(len(claimed), func(k int) {
		i := claimed[k]
		id := b.envelopes[i].ID
		var err error
		switch {
		case b.errs[i] == nil:
			_, err = d.keys.Complete(limited, b.keys[i], id, d.ttl)
		case errors.Is(b.errs[i], ErrOutcomeUnknown):
			// It may be durable: the claim stays until its lease ends, so that only
			// the same message can be published again meanwhile.
		default:
			err = d.keys.Release(limited, b.keys[i], id)
		}
		if err != nil && !errors.Is(err, idempotency.ErrLost) {
			d.logger.LogAttrs(ctx, slog.LevelWarn, "idempotency key not recorded",
				slog.String("message_id", id), errorAttr(err))
		}
	})
}

// answerRepeated answers for messages whose key an earlier one of the batch has:
// they are its duplicates if it was sent, and failed as it did if not.
func (b *keyedBatch) answerRepeated() {
	for i, first := range b.first {
		switch {
		case first == i:
		case b.errs[first] == nil:
			b.errs[i] = &DuplicateError{Of: b.envelopes[first].ID}
		default:
			b.errs[i] = b.errs[first]
		}
	}
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
