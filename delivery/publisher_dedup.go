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
