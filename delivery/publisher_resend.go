package delivery

import (
	"context"
	"fmt"
	"time"
)

// Resend sends messages again that the transport has confirmed and lost, for
// operators: a queue was deleted, say, or a broker came back without its disk.
// Nothing else tells a record of such a message from one that waits for its turn:
// both are queued. RecordStats.OldestQueued tells that there may be some, and a
// List of what is queued which.
//
// Each is sent as its next generation, so that no copy that was sent before keeps
// it from being handled. A message that is not lost is handled twice.
//
// Resend is ErrClosed after Close, and ctx's error if ctx had ended before. Any
// other outcome is nil or a *ResultsError with a result for each ID, in order:
// those of Forward; ErrNotFound where the publisher's queue has no such message;
// ErrLate where it is not queued, or waits in a Volatile transport of a process
// that is alive. An ID that is given twice is sent once.
//
// Resend needs a Store, or is ErrUnsupported.
func (p *Publisher) Resend(ctx context.Context, ids ...string) error {
	if err := p.begin(ctx); err != nil {
		return err
	}
	defer p.calls.end()
	if len(ids) == 0 {
		return nil
	}
	if p.config.Store == nil {
		return fmt.Errorf("%w: Resend wants PublisherConfig.Store", ErrUnsupported)
	}
	records, errs := getEach(ctx, p.config.Store, ids...)
	now := time.Now()
	var envelopes []Envelope
	places := map[string]int{} // in envelopes
	for i := range ids {
		if errs[i] == nil {
			errs[i] = notLost(&records[i], p.config.Queue, now)
		}
		if _, twice := places[ids[i]]; errs[i] != nil || twice {
			continue
		}
		envelope := records[i].Envelope()
		envelope.Generation, envelope.Attempt = envelope.Generation+1, 0
		places[ids[i]] = len(envelopes)
		envelopes = append(envelopes, envelope)
	}
	if len(envelopes) == 0 {
		return resultsError(len(ids), func(i int) string { return ids[i] }, errs)
	}
	if failed := p.forward(ctx, envelopes); failed != nil {
		for i := range ids {
			if errs[i] == nil {
				errs[i] = failed[places[ids[i]]]
			}
		}
	}
	return resultsError(len(ids), func(i int) string { return ids[i] }, errs)
}

// notLost says why a message of queue can't have been lost by the transport, or nil.
func notLost(record *Record, queue string, now time.Time) error {
	switch {
	case record.Queue != queue:
		return fmt.Errorf("%w in queue %s", ErrNotFound, queue)
	case record.Status != StatusQueued, record.ClaimedBy != "" && record.DueAt.After(now):
		return &LateError{ID: record.ID, Status: record.Status, Generation: record.Generation, RetryCount: record.RetryCount}
	}
	return nil
}
