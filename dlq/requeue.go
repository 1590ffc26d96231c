package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/esh3artech/barid/delivery"
)

// Requeue sends entries again, and removes those that the sender confirmed.
// Each is sent as the next generation, with no attempt counted and with its
// history. An ExpiresAt that has passed is cleared. Entries are sent in
// batches, with one call of Forward for each batch.
//
// The results are one for each id, in order. The error is a
// *delivery.ResultsError with the same results when one of them has an error.
// Except with ErrNotRemoved, an entry with an error was not confirmed. It is
// still kept. The errors are:
//
//   - nil: sent and removed
//   - ErrNotFound: there is no such entry
//   - ErrClaimed: another call, or a replay job, is requeueing it
//   - ErrNotReplayable: malformed (see RequeueMalformed), or refused by
//     Message.Validate, whose error it wraps
//   - ErrNotRemoved: sent and confirmed, but still kept; it wraps the reason
//   - a context's error: not tried, or interrupted
//   - any other: the sender's or the store's; with delivery.ErrOutcomeUnknown
//     the message may have been sent
//
// Without a Sender nothing is tried, and the error is ErrNoSender.
func (m *Manager) Requeue(ctx context.Context, ids ...string) ([]delivery.Result, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	if m.requeuer.sender == nil {
		return nil, ErrNoSender
	}
	return m.inBatches(ctx, ids, "dead letters requeued", func(batch []string) []error {
		return m.requeuer.requeue(ctx, batch, nextEnvelope)
	})
}

// RequeueMalformed is Requeue for entries with the reason malformed too, which
// somebody has looked at and wants to be handled nevertheless. What is sent of such
// an entry is its body as it came, Raw, with what could be read of the rest; without
// an ID it gets the entry's. One without a Recipient remains ErrNotReplayable, and a
// body that was too large is so again.
func (m *Manager) RequeueMalformed(ctx context.Context, ids ...string) ([]delivery.Result, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	if m.requeuer.sender == nil {
		return nil, ErrNoSender
	}
	return m.inBatches(ctx, ids, "malformed dead letters requeued", func(batch []string) []error {
		return m.requeuer.requeue(ctx, batch, mendedEnvelope)
	})
}

// finishTimeout bounds what follows sending, when the caller's context may have
// ended already.
const finishTimeout = 5 * time.Second

// requeuer claims entries, sends them, and removes those that were confirmed.
type requeuer struct {
	store  Store
	sender Sender // may be nil; the callers check it
	lease  time.Duration
}

// envelopeOf returns the envelope to be sent for an entry, or ErrNotReplayable.
type envelopeOf func(entry *Entry, now time.Time) (delivery.Envelope, error)

// requeue spends half of the lease at most on sending, and a quarter on what
// follows, so that the claim lasts longer than both.
func (r *requeuer) requeue(ctx context.Context, ids []string, of envelopeOf) []error {
	claim := Claim{Token: uuid.NewString(), Now: time.Now(), Lease: r.lease}
	entries, errs := r.claim(ctx, claim, ids)
	r.send(ctx, claim, entries, errs, of)

	// What was sent has to be removed even if the caller has no more time.
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(claim.Lease/4, finishTimeout))
	defer cancel()
	r.finish(finishing, claim.Token, ids, errs)
	return errs
}

// claim returns an entry and an error for each id. The errors belong to the
// caller.
func (r *requeuer) claim(ctx context.Context, claim Claim, ids []string) ([]Entry, []error) {
	entries, errs := r.store.Claim(ctx, claim, ids...)
	errs = slices.Clone(aligned(errs, len(ids)))
	if len(entries) != len(ids) {
		fault := fmt.Errorf("dlq: store returned %d entries for %d ids", len(entries), len(ids))
		return make([]Entry, len(ids)), slices.Repeat([]error{fault}, len(ids))
	}
	return entries, errs
}

// send sends the entries that have no error, within half of the claim's lease.
// It sets the errors of those that were not confirmed, and returns how many it
// gave to the sender.
func (r *requeuer) send(ctx context.Context, claim Claim, entries []Entry, errs []error, of envelopeOf) int {
	var sendable []int
	var envelopes []delivery.Envelope
	for i := range entries {
		if errs[i] != nil {
			continue
		}
		envelope, err := of(&entries[i], claim.Now)
		if err != nil {
			errs[i] = err
			continue
		}
		sendable = append(sendable, i)
		envelopes = append(envelopes, envelope)
	}
	sending, cancel := context.WithDeadline(ctx, claim.Now.Add(claim.Lease/2))
	for k, err := range r.forward(sending, envelopes) {
		errs[sendable[k]] = err
	}
	cancel()
	return len(envelopes)
}

// nextEnvelope is an envelopeOf that takes no malformed entry.
func nextEnvelope(entry *Entry, now time.Time) (delivery.Envelope, error) {
	if entry.Reason == delivery.ReasonMalformed {
		return delivery.Envelope{}, fmt.Errorf("%w: it is malformed", ErrNotReplayable)
	}
	return replayable(entry, now)
}

// mendedEnvelope is an envelopeOf that makes a message of a malformed entry as far as
// that can be done.
func mendedEnvelope(entry *Entry, now time.Time) (delivery.Envelope, error) {
	if entry.Reason != delivery.ReasonMalformed {
		return replayable(entry, now)
	}
	mended := *entry
	if mended.Envelope.Body == nil {
		mended.Envelope.Body = entry.Raw
	}
	if mended.Envelope.ID == "" {
		mended.Envelope.ID = entry.ID
	}
	return replayable(&mended, now)
}

// replayable returns an entry's next generation if it can be sent.
func replayable(entry *Entry, now time.Time) (delivery.Envelope, error) {
	if entry.Envelope.Generation >= MaxCounter {
		return delivery.Envelope{}, fmt.Errorf("%w: it was requeued %d times, the most that can be counted", ErrNotReplayable, entry.Envelope.Generation)
	}
	envelope := entry.next(now)
	// Checked here, because a sender refuses a whole batch for one invalid
	// envelope.
	if err := envelope.Validate(); err != nil {
		return delivery.Envelope{}, fmt.Errorf("%w: %w", ErrNotReplayable, err)
	}
	return envelope, nil
}

// forward returns an error for each envelope. Envelopes that the sender did not
// send only because of others in the same call are sent in another call.
func (r *requeuer) forward(ctx context.Context, envelopes []delivery.Envelope) []error {
	errs := make([]error, len(envelopes))
	pending := make([]int, len(envelopes))
	for i := range pending {
		pending[i] = i
	}
	for len(pending) > 0 {
		batch := make([]delivery.Envelope, len(pending))
		for k, i := range pending {
			batch[k] = envelopes[i]
		}
		var again []int
		for k, err := range r.forwardOnce(ctx, batch) {
			errs[pending[k]] = err
			if errors.Is(err, delivery.ErrNotSent) {
				again = append(again, pending[k])
			}
		}
		if len(again) == len(pending) {
			break
		}
		pending = again
	}
	return errs
}

// forwardOnce calls the sender, and returns an error for each envelope.
func (r *requeuer) forwardOnce(ctx context.Context, batch []delivery.Envelope) []error {
	err := r.sender.Forward(ctx, batch...)
	errs := make([]error, len(batch))
	if err == nil {
		return errs
	}
	var each *delivery.ResultsError
	if errors.As(err, &each) && len(each.Results) == len(batch) && len(each.Unwrap()) > 0 {
		for i, result := range each.Results {
			errs[i] = result.Err
		}
		return errs
	}
	return slices.Repeat([]error{err}, len(batch))
}

// finish removes the entries that have no error, and releases the claims of the
// others. A claim that can't be released ends by itself.
func (r *requeuer) finish(ctx context.Context, token string, ids []string, errs []error) {
	var sent []int
	var remove, release []string
	for i, err := range errs {
		switch {
		case err == nil:
			sent = append(sent, i)
			remove = append(remove, ids[i])
		case errors.Is(err, ErrNotFound) || errors.Is(err, ErrClaimed):
		default:
			release = append(release, ids[i])
		}
	}
	if len(remove) > 0 {
		for k, err := range aligned(r.store.Remove(ctx, token, remove...), len(remove)) {
			if err != nil && !errors.Is(err, ErrNotFound) {
				errs[sent[k]] = fmt.Errorf("%w: %w", ErrNotRemoved, err)
				release = append(release, remove[k])
			}
		}
	}
	if len(release) > 0 {
		r.store.Release(ctx, token, release...)
	}
}
