package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// sender makes batches durable. A nil result means that all of a batch is, any other
// has an error, or nil, for each envelope.
type sender interface {
	publish(ctx context.Context, batch []Envelope, now time.Time) []error
	// replay is publish for envelopes that have a past.
	replay(ctx context.Context, batch []Envelope, now time.Time) []error
}

// directSender has batches confirmed by the transport, and then records that if
// there is a store.
type directSender struct {
	transport Transport
	store     Store // or nil
	queue     string
	logger    *slog.Logger
}

func newDirectSender(transport Transport, config *PublisherConfig) *directSender {
	return &directSender{transport: transport, store: config.Store, queue: config.Queue, logger: config.Logger}
}

func (s *directSender) publish(ctx context.Context, batch []Envelope, now time.Time) []error {
	errs := s.send(ctx, batch, now)
	logQueued(ctx, s.logger, batch, errs)
	if s.store != nil {
		s.record(ctx, batch, errs, now)
	}
	return errs
}

func (s *directSender) replay(ctx context.Context, batch []Envelope, now time.Time) []error {
	return s.publish(ctx, batch, now)
}

// send gives the batch to the transport: what is due in one call, and
// one call for each time to come.
func (s *directSender) send(ctx context.Context, batch []Envelope, now time.Time) []error {
	scheduled := false
	for i := range batch {
		scheduled = scheduled || batch[i].NotBefore.After(now)
	}
	if scheduled {
		return s.sendScheduled(ctx, batch, now)
	}
	if errs := s.transport.Send(ctx, batch); errs != nil {
		return eachOf(errs, len(batch))
	}
	return nil
}

func (s *directSender) sendScheduled(ctx context.Context, batch []Envelope, now time.Time) []error {
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
		for k, err := range eachOf(s.sendAt(ctx, due, now, group), len(group)) {
			errs[places[k]] = err
		}
	}
	return errs
}

// sendAt sends a group that is due at the same time, zero for now.
func (s *directSender) sendAt(ctx context.Context, due, now time.Time, group []Envelope) []error {
	if due.IsZero() {
		return s.transport.Send(ctx, group)
	}
	if delayer, able := s.transport.(Delayer); able {
		return delayer.SendAfter(ctx, due.Sub(now), group)
	}
	errs := make([]error, len(group))
	for k := range errs {
		errs[k] = fmt.Errorf("%w: the transport can't hold a message back until its NotBefore", ErrUnsupported)
	}
	return errs
}

// record saves a record of what the transport has confirmed. A replay's
// record is there already, and begins its next generation.
func (s *directSender) record(ctx context.Context, batch []Envelope, errs []error, now time.Time) {
	var records []Record
	for i := range batch {
		if errs == nil || errs[i] == nil {
			records = append(records, s.confirmedRecord(&batch[i], now))
		}
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	failed := func(id string, err error) {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "message not recorded",
			slog.String("message_id", id), errorAttr(err))
	}
	var replays []Update
	for i, err := range eachOf(s.store.Save(limited, records...), len(records)) {
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
	_, errs = s.store.Update(limited, replays...)
	for i, err := range eachOf(errs, len(replays)) {
		if err != nil && !errors.Is(err, ErrLate) {
			failed(replays[i].ID, err)
		}
	}
}

func (s *directSender) confirmedRecord(envelope *Envelope, now time.Time) Record {
	record := newRecord(envelope, s.queue, now)
	record.Status = StatusQueued
	if session := sessionOf(s.transport); session != "" {
		begin := now
		if record.NotBefore.After(begin) {
			begin = record.NotBefore
		}
		record.ClaimedBy, record.DueAt = session, begin.Add(sessionHold)
	}
	return record
}
