package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// errNotPicked: the entry was put again, and the job's filter no longer picks
// it.
var errNotPicked = errors.New("dlq: entry was put again")

// replayBatch is a number of a job's entries that are sent together.
type replayBatch struct {
	ids       []string
	positions []delivery.Position
	errs      []error // of each id; nil when it was sent and confirmed
	read      bool    // its page of entries was read
	last      bool    // no entry is behind it
	probe     bool    // see unclearFailures

	claimedUntil time.Time
	next         time.Time         // when the batch after it may be sent
	end          delivery.Position // of the last entry that was looked at
	generations  generations       // to be passed

	// What follows from errs, see conclude.
	passed   delivery.Position // of the last entry that the job is finished with
	sent     []string
	claimed  []string // and not sent
	retryErr error    // why entries behind passed have to be tried again; nil when none has
	lastErr  error    // what last went wrong

	requeued, skipped, failed int
}

// conclude counts the outcomes. Entries behind one that has to be tried again
// are read again. So those of them that were not sent are counted then.
func (b *replayBatch) conclude() {
	for i, err := range b.errs {
		outcome := outcomeOf(err)
		if outcome == outcomeRetry && b.retryErr == nil {
			b.retryErr = err
		}
		switch {
		case outcome == outcomeSent:
			b.sent = append(b.sent, b.ids[i])
			b.requeued++
		case b.retryErr != nil:
		case outcome == outcomeFailed:
			b.failed++
		default:
			b.skipped++
		}
		if outcome == outcomeFailed {
			b.lastErr = err
		}
		if outcome != outcomeSent && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClaimed) {
			b.claimed = append(b.claimed, b.ids[i])
		}
		if b.retryErr == nil {
			b.passed = b.positions[i]
		}
	}
	if b.retryErr != nil {
		b.lastErr = b.retryErr
		return
	}
	b.passed = b.end
	if next := b.generations.next; b.last && next != 0 {
		b.generations, b.passed = generations{sends: next}, delivery.Position{} // from the oldest on again
	}
}

// replayOutcome is what an entry's error means for its job.
type replayOutcome uint8

const (
	outcomeSent    replayOutcome = iota
	outcomeSkipped               // gone, claimed by someone else, or no longer picked
	outcomeFailed                // can't be sent, now or later
	outcomeRetry                 // has to be tried again
)

func outcomeOf(err error) replayOutcome {
	switch {
	case err == nil:
		return outcomeSent
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrClaimed) || errors.Is(err, errNotPicked):
		return outcomeSkipped
	case errors.Is(err, ErrNotReplayable) || errors.Is(err, delivery.ErrInvalid):
		return outcomeFailed
	}
	return outcomeRetry
}

// batchFinisher removes the entries of a batch that were sent, releases the
// claims of the others, and stores the progress of the job.
type batchFinisher struct {
	store Store
	lease *jobLease
	gauge *entryGauge

	claimsUntil time.Time // when the last claim ends that could not be released
}

// finish tries until ctx ends, because an entry that was sent must not be sent
// again when the store was away for a while.
func (f *batchFinisher) finish(ctx context.Context, b *replayBatch) error {
	left := f.remove(ctx, b)
	left = f.release(ctx, b) || left
	if left && b.claimedUntil.After(f.claimsUntil) {
		f.claimsUntil = b.claimedUntil
	}
	progress := f.lease.job
	progress.Requeued += b.requeued
	progress.Skipped += b.skipped
	progress.Failed += b.failed
	if b.lastErr != nil {
		progress.setLastError(b.lastErr)
	}
	// Set, not added: the store may have done it before its answer got lost.
	err := f.lease.persist(ctx, func(job *Job) {
		job.Requeued, job.Skipped, job.Failed = progress.Requeued, progress.Skipped, progress.Failed
		job.LastError, job.After, job.NextAt = progress.LastError, b.passed, b.next
		job.Sends, job.SendsNext = b.generations.sends, b.generations.next
	})
	f.lease.logger.LogAttrs(ctx, slog.LevelDebug, "replay batch finished",
		slog.Int("requeued", b.requeued), slog.Int("skipped", b.skipped), slog.Int("failed", b.failed))
	if b.requeued > 0 {
		f.gauge.refresh()
	}
	return err
}

// remove removes what was sent. It returns true when ctx ended before it could.
func (f *batchFinisher) remove(ctx context.Context, b *replayBatch) bool {
	ids := b.sent
	for failures := 0; len(ids) > 0; failures++ {
		if failures > 0 && !retry.Wait(ctx.Done(), backoff.Delay(failures-1)) {
			f.lease.logger.LogAttrs(ctx, slog.LevelWarn, "replayed entries not removed",
				slog.Any("dead_letter_ids", ids), slog.Any("error", b.lastErr))
			return true
		}
		bounded, cancel := f.lease.bounded(ctx)
		errs := aligned(f.store.Remove(bounded, f.lease.token, ids...), len(ids))
		cancel()
		var again []string
		for k, err := range errs {
			switch {
			case err == nil || errors.Is(err, ErrNotFound):
				continue
			case errors.Is(err, ErrReplaced):
				b.claimed = append(b.claimed, ids[k])
			case !errors.Is(err, ErrClaimLost):
				again = append(again, ids[k])
			}
			b.lastErr = fmt.Errorf("%w: %w", ErrNotRemoved, err)
		}
		if ids = again; len(ids) > 0 {
			f.lease.logWait(ctx, storeWaits, failures, b.lastErr)
		}
	}
	return false
}

// release releases the claims of what was not sent. It returns true when it
// could not.
func (f *batchFinisher) release(ctx context.Context, b *replayBatch) bool {
	if len(b.claimed) == 0 {
		return false
	}
	bounded, cancel := f.lease.bounded(ctx)
	defer cancel()
	for _, err := range aligned(f.store.Release(bounded, f.lease.token, b.claimed...), len(b.claimed)) {
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrClaimLost) {
			return true
		}
	}
	return false
}
