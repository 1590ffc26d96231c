package sqlstore

import (
	"context"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// updateCall is one call of Update on its way through the writer.
type updateCall struct {
	updates  []delivery.Update
	progress []delivery.Progress
	errs     []error
	due      time.Time // the earliest that the updates set
}

// Update implements delivery.Store.
func (s *Store) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	progress := make([]delivery.Progress, len(updates))
	if err := s.usable(); err != nil {
		return progress, slices.Repeat([]error{err}, len(updates))
	}
	errs := eachChunk(len(updates), chunkByCount(len(updates), s.config.MaxBatch), func(from, to int, amount size) ([]error, error) {
		errs := make([]error, to-from)
		c := &updateCall{updates: make([]delivery.Update, 0, to-from)}
		at := make([]int, 0, to-from)
		for i := range errs {
			u := &updates[from+i]
			if errs[i] = u.Validate(); errs[i] == nil && len(u.ClaimedBy) > maxIndexedBytes {
				errs[i] = &delivery.TooLargeError{Field: "Update.ClaimedBy", Size: len(u.ClaimedBy), Limit: maxIndexedBytes}
			}
			if errs[i] == nil {
				errs[i] = checkQueue("Update.Queue", u.Queue)
			}
			if errs[i] == nil {
				c.updates = append(c.updates, isolatedUpdate(u))
				at = append(at, i)
			}
		}
		if len(c.updates) == 0 {
			return errs, nil
		}
		err := s.writer.execute(ctx, s.update, amount, c)
		for n, i := range at {
			if err != nil {
				errs[i] = err
			} else {
				progress[from+i], errs[i] = c.progress[n], c.errs[n]
			}
		}
		return errs, err
	})
	return progress, errs
}

// isolatedUpdate is a copy of u that shares nothing with it, with its times as
// they are stored.
func isolatedUpdate(u *delivery.Update) delivery.Update {
	c := *u
	c.At, c.DueAt = inMicros(u.At), inMicros(u.DueAt)
	if u.Failure != nil {
		failure := *u.Failure
		failure.At = inMicros(failure.At)
		c.Failure = &failure
	}
	return c
}

// recordState is a record's progress in the course of a transaction.
type recordState struct {
	record  delivery.Record // the ID and the progress alone
	found   bool
	changed bool
}

func (t *recordTables) runUpdates(ctx context.Context, q querier, calls []*updateCall) error {
	states := make(map[string]*recordState, len(calls))
	ids := make([]string, 0, len(calls))
	for _, c := range calls {
		for i := range c.updates {
			id := c.updates[i].ID
			if states[id] == nil {
				states[id] = &recordState{record: delivery.Record{Message: delivery.Message{ID: id}}}
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	if err := t.lockStates(ctx, q, ids, states); err != nil {
		return err
	}
	for _, c := range calls {
		c.apply(states)
	}
	changed := make([]row, 0, len(ids))
	for _, id := range ids {
		if st := states[id]; st.changed {
			changed = append(changed, encodeProgress([]byte(id), &st.record.Progress))
		}
	}
	return t.changes.change(ctx, q, changed)
}

func (t *recordTables) lockStates(ctx context.Context, q querier, ids []string, states map[string]*recordState) error {
	all := make([]*delivery.Progress, 0, len(ids))
	err := t.dialect.queryByKeys(ctx, q, t.lockedState, keysOf(ids), func(answer scanner) error {
		var id intoBytes
		var p delivery.Progress
		if err := answer.Scan(append([]any{&id}, intoProgress(&p)...)...); err != nil {
			return err
		}
		st := states[string(id)]
		st.found, st.record.Progress = true, p
		all = append(all, &st.record.Progress)
		return nil
	})
	if err != nil {
		return err
	}
	return t.fillDueTimes(ctx, q, all)
}

func keysOf(ids []string) [][]byte {
	keys := make([][]byte, len(ids))
	for i, id := range ids {
		keys[i] = []byte(id)
	}
	return keys
}

// apply applies the call's updates to the states, in their order.
func (c *updateCall) apply(states map[string]*recordState) {
	c.progress, c.errs = make([]delivery.Progress, len(c.updates)), make([]error, len(c.updates))
	c.due = time.Time{}
	for i, u := range c.updates {
		st := states[u.ID]
		if !st.found {
			c.errs[i] = delivery.ErrNotFound
			continue
		}
		before := st.record.Progress
		c.errs[i] = st.record.Apply(u)
		c.progress[i] = st.record.Progress
		c.progress[i].History = slices.Clone(c.progress[i].History)
		if progressChanged(&before, &st.record.Progress) {
			st.changed = true
			c.due = earliest(c.due, st.record.DueAt)
		}
	}
}

// progressChanged returns whether an update has changed anything. An update
// with a failure always has, because it makes a new history.
func progressChanged(a, b *delivery.Progress) bool {
	return a.Queue != b.Queue || a.Status != b.Status || a.Generation != b.Generation || a.RetryCount != b.RetryCount ||
		!a.DueAt.Equal(b.DueAt) || a.ClaimedBy != b.ClaimedBy || !a.UpdatedAt.Equal(b.UpdatedAt) ||
		!a.NextRetryAt.Equal(b.NextRetryAt) || !a.AckDeadline.Equal(b.AckDeadline) || !a.SentAt.Equal(b.SentAt) ||
		!a.DeliveredAt.Equal(b.DeliveredAt) || !a.ReadAt.Equal(b.ReadAt) || !a.LastRetryAt.Equal(b.LastRetryAt) ||
		a.DeadLetterID != b.DeadLetterID ||
		len(a.History) != len(b.History) || len(a.History) > 0 && &a.History[0] != &b.History[0]
}

func (w *watchers) updatesCommitted(calls []*updateCall) {
	var due time.Time
	for _, c := range calls {
		due = earliest(due, c.due)
	}
	w.tell(due)
}
