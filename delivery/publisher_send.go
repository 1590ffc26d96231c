package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// send makes the batch durable, in the store or in the transport. A nil result
// means that all of it is.
func (p *Publisher) send(ctx context.Context, batch []Envelope, now time.Time) []error {
	if p.outbox != nil {
		return p.outbox.publish(ctx, batch, now)
	}
	errs := p.sendToTransport(ctx, batch, now)
	if p.config.Store != nil {
		p.recordConfirmed(ctx, batch, errs, now)
	}
	return errs
}

// sendToTransport gives the batch to the transport: what is due in one call, and
// one call for each time to come.
func (p *Publisher) sendToTransport(ctx context.Context, batch []Envelope, now time.Time) []error {
	scheduled := false
	for i := range batch {
		scheduled = scheduled || batch[i].NotBefore.After(now)
	}
	if scheduled {
		return p.sendScheduled(ctx, batch, now)
	}
	if errs := p.transport.Send(ctx, batch); errs != nil {
		return eachOf(errs, len(batch))
	}
	return nil
}

func (p *Publisher) sendScheduled(ctx context.Context, batch []Envelope, now time.Time) []error {
	groups := make(map[time.Time][]int) // places in the batch, by when they are due
	for i := range batch {
		due := time.Time{}
		if batch[i].NotBefore.After(now) {
			due = batch[i].NotBefore
		}
		groups[due] = append(groups[due], i)
	}
	errs := make([]error, len(batch))
	for due, places := range groups {
		group := make([]Envelope, len(places))
		for k, i := range places {
			group[k] = batch[i]
		}
		for k, err := range eachOf(p.sendAt(ctx, due, now, group), len(group)) {
			errs[places[k]] = err
		}
	}
	return errs
}

// sendAt sends a group that is due at the same time, zero for now.
func (p *Publisher) sendAt(ctx context.Context, due, now time.Time, group []Envelope) []error {
	if due.IsZero() {
		return p.transport.Send(ctx, group)
	}
	if delayer, able := p.transport.(Delayer); able {
		return delayer.SendAfter(ctx, due.Sub(now), group)
	}
	errs := make([]error, len(group))
	for k := range errs {
		errs[k] = fmt.Errorf("%w: the transport can't hold a message back until its NotBefore", ErrUnsupported)
	}
	return errs
}

// recordConfirmed saves a record of what the transport has confirmed. A replay's
// record is there already, and begins its next generation.
func (p *Publisher) recordConfirmed(ctx context.Context, batch []Envelope, errs []error, now time.Time) {
	var records []Record
	for i := range batch {
		if errs == nil || errs[i] == nil {
			records = append(records, p.confirmedRecord(&batch[i], now))
		}
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	failed := func(id string, err error) {
		p.config.Logger.LogAttrs(ctx, slog.LevelWarn, "message published but not recorded",
			slog.String("message_id", id), errorAttr(err))
	}
	var replays []Update
	for i, err := range eachOf(p.config.Store.Save(limited, records...), len(records)) {
		switch record := &records[i]; {
		case err == nil:
		case !errors.Is(err, ErrExists):
			failed(record.ID, err)
		case record.Generation > 0:
			replays = append(replays, Update{
				ID: record.ID, Status: record.Status, Queue: record.Queue, Generation: record.Generation, RetryCount: record.RetryCount,
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

func (p *Publisher) confirmedRecord(envelope *Envelope, now time.Time) Record {
	record := newRecord(envelope, p.config.Queue, now)
	record.Status = StatusQueued
	if session := sessionOf(p.transport); session != "" {
		begin := now
		if record.NotBefore.After(begin) {
			begin = record.NotBefore
		}
		record.ClaimedBy, record.DueAt = session, begin.Add(sessionHold)
	}
	return record
}
