package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// record keeps a record of what the transport has confirmed.
func (p *Publisher) record(ctx context.Context, batch []Envelope, errs []error, now time.Time) {
	var records []Record
	for i := range batch {
		if errs == nil || errs[i] == nil {
			record := newRecord(&batch[i], now)
			record.Status = StatusQueued
			if session := sessionOf(p.transport); session != "" {
				begin := now
				if record.NotBefore.After(begin) {
					begin = record.NotBefore
				}
				record.ClaimedBy, record.DueAt = session, begin.Add(sessionHold)
			}
			records = append(records, record)
		}
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	var replays []Update
	failed := func(id string, err error) {
		p.config.Logger.LogAttrs(ctx, slog.LevelWarn, "message published but not recorded",
			slog.String("message_id", id), slog.Any("error", err))
	}
	for i, err := range eachOf(p.config.Store.Save(limited, records...), len(records)) {
		switch record := &records[i]; {
		case err == nil:
		case !errors.Is(err, ErrExists):
			failed(record.ID, err)
		case record.Generation > 0:
			replays = append(replays, Update{
				ID: record.ID, Status: record.Status, Generation: record.Generation, RetryCount: record.RetryCount,
				At: now, DueAt: record.DueAt, ClaimedBy: record.ClaimedBy,
			})
		}
	}
	if len(replays) == 0 {
		return
	}
	_, errs = p.config.Store.Update(limited, replays...)
	for i, err := range eachOf(errs, len(replays)) {
		if err != nil && !errors.Is(err, ErrLate) {
			failed(replays[i].ID, err)
		}
	}
}

// transmit gives the batch to the transport: what is due in one call, and one
// call for each time to come.
func (p *Publisher) transmit(ctx context.Context, batch []Envelope, now time.Time) []error {
	scheduled := false
	for i := range batch {
		scheduled = scheduled || batch[i].NotBefore.After(now)
	}
	if !scheduled {
		if errs := p.transport.Send(ctx, batch); errs != nil {
			return eachOf(errs, len(batch))
		}
		return nil
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
		for k, err := range eachOf(results, len(group)) {
			errs[members[k]] = err
		}
	}
	return errs
}
