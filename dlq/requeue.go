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

// Requeue sends entries again and removes those that the sender confirmed. Each
// is sent as the next generation with no attempt counted and its history kept;
// an ExpiresAt that has passed is cleared. Entries are sent in batches, one
// call of Forward for each.
//
// The results are one for each id, in order; see delivery.ResultsError for the error.
// Except for ErrNotRemoved, whatever has an error was not confirmed, and is
// still kept:
//
//   - nil: sent, and removed
//   - ErrNotFound: there is none
//   - ErrClaimed: being requeued by someone else
//   - ErrNotReplayable: malformed, or refused by Message.Validate, whose error
//     it wraps
//   - ErrNotRemoved: sent and confirmed, but still kept; it wraps the reason
//   - a context's error: not tried, or cut short
//   - any other: the sender's or the store's; with delivery.ErrOutcomeUnknown
//     the message may have been sent
//
// Without a Sender nothing is tried: ErrNoSender.
func (m *Manager) Requeue(ctx context.Context, ids ...string) ([]delivery.Result, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	if m.sender == nil {
		return nil, ErrNoSender
	}
	return m.inBatches(ctx, ids, "dead letters requeued", func(batch []string) []error {
		return m.requeue(ctx, batch)
	})
}

// settleTimeout bounds what comes after sending, when the caller's context may
// have ended already.
const settleTimeout = 5 * time.Second

// requeue has half of the lease for sending and at most a quarter for what
// comes after it, so that the claim outlives both.
func (m *Manager) requeue(ctx context.Context, ids []string) []error {
	claim := Claim{Token: uuid.NewString(), Now: time.Now(), Lease: m.config.Lease}
	entries, errs := m.claim(ctx, claim, ids)
	m.send(ctx, claim, entries, errs)

	// What was sent has to go even if the caller has no more time.
	settling, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(claim.Lease/4, settleTimeout))
	defer cancel()
	m.settle(settling, claim.Token, ids, errs)
	return errs
}

// claim returns an entry and an error for each id, and the errors are the
// caller's.
func (m *Manager) claim(ctx context.Context, claim Claim, ids []string) ([]Entry, []error) {
	entries, errs := m.store.Claim(ctx, claim, ids...)
	errs = slices.Clone(aligned(errs, len(ids)))
	if len(entries) != len(ids) {
		fault := fmt.Errorf("dlq: store returned %d entries for %d ids", len(entries), len(ids))
		return make([]Entry, len(ids)), slices.Repeat([]error{fault}, len(ids))
	}
	return entries, errs
}

// send sends the entries that have no error, within half of the claim's lease,
// and notes the errors of those that were not confirmed. It returns how many it
// gave to the sender.
func (m *Manager) send(ctx context.Context, claim Claim, entries []Entry, errs []error) int {
	var sendable []int
	var envelopes []delivery.Envelope
	for i := range entries {
		if errs[i] != nil {
			continue
		}
		envelope, err := replay(&entries[i], claim.Now)
		if err != nil {
			errs[i] = err
			continue
		}
		sendable = append(sendable, i)
		envelopes = append(envelopes, envelope)
	}
	sending, cancel := context.WithDeadline(ctx, claim.Now.Add(claim.Lease/2))
	for k, err := range m.forward(sending, envelopes) {
		errs[sendable[k]] = err
	}
	cancel()
	return len(envelopes)
}

// replay is the envelope to be sent for an entry.
func replay(entry *Entry, now time.Time) (delivery.Envelope, error) {
	if entry.Reason == delivery.ReasonMalformed {
		return delivery.Envelope{}, fmt.Errorf("%w: it is malformed", ErrNotReplayable)
	}
	envelope := entry.next(now)
	// Checked here, because a sender refuses a whole batch for one.
	if err := envelope.Validate(); err != nil {
		return delivery.Envelope{}, fmt.Errorf("%w: %w", ErrNotReplayable, err)
	}
	return envelope, nil
}

// forward returns an error for each envelope. Those that the sender did not
// send only because of others in the same call get a call of their own.
func (m *Manager) forward(ctx context.Context, envelopes []delivery.Envelope) []error {
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
		for k, err := range m.forwardOnce(ctx, batch) {
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

func (m *Manager) forwardOnce(ctx context.Context, batch []delivery.Envelope) []error {
	err := m.sender.Forward(ctx, batch...)
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

// settle removes what has no error and gives back the rest. A claim that can't
// be given back ends by itself.
func (m *Manager) settle(ctx context.Context, token string, ids []string, errs []error) {
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
		for k, err := range aligned(m.store.Remove(ctx, token, remove...), len(remove)) {
			if err != nil && !errors.Is(err, ErrNotFound) {
				errs[sent[k]] = fmt.Errorf("%w: %w", ErrNotRemoved, err)
				release = append(release, remove[k])
			}
		}
	}
	if len(release) > 0 {
		m.store.Release(ctx, token, release...)
	}
}
