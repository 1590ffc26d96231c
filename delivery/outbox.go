package delivery

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Saver saves records. A Store is one; one that saves in the host's own
// transaction makes the message a part of that.
type Saver interface {
	Save(ctx context.Context, records ...Record) []error
}

// CommittedSaver is a Saver in a transaction that can tell the store's watchers
// what became due by it: they wake in time for what is scheduled, and need not
// find it at their next scan.
type CommittedSaver interface {
	Saver
	// Committed is called once, after the commit.
	Committed()
}

const (
	// outboxBytes bounds the bodies that wait to be sent.
	outboxBytes = 64 << 20
	// outboxBatch is how many messages are sent together.
	outboxBatch = 256
	// markDelay is for how long marks are gathered. By then most messages have
	// got further, and their marks are late and change nothing.
	markDelay = time.Second
	// markBatch is how many marks are written together, maxMarks how many may
	// wait while the store is down. What is beyond is sent once more by a
	// RetryWorker.
	markBatch = 1000
	maxMarks  = 10_000
)

// outbox saves messages and then sends them in the background, in the order in
// which they were saved. Its goroutine lives while there is something to send.
//
// What it does not get to (there is no room, the transport is down, the process
// dies) is a RetryWorker's, from the record's DueAt on.
type outbox struct {
	store     Store
	transport Transport
	token     string // claims for us what is not sent yet
	session   string // claims what is in a Volatile transport, else empty
	grace     time.Duration
	most      int // messages
	logger    *slog.Logger

	mu      sync.Mutex
	changed sync.Cond // sending or marking ended
	waiting []outgoing
	count   int // messages waiting and being sent
	bytes   int
	sending bool
	marks   []Update
	marking bool
	closed  bool
}

type outgoing struct {
	envelope Envelope
	saved    time.Time
}

func newOutbox(transport Transport, config *PublisherConfig) *outbox {
	o := &outbox{
		store:     config.Store,
		transport: transport,
		token:     NewID(),
		session:   sessionOf(transport),
		grace:     config.PendingGrace,
		most:      config.MaxOutgoing,
		logger:    config.Logger,
	}
	o.changed.L = &o.mu
	return o
}

// save returns an error for each envelope that is not durable by saver now, and
// those that are to be sent once it is certain that they stay.
func (o *outbox) save(ctx context.Context, saver Saver, batch []Envelope, now time.Time) ([]error, []Envelope) {
	ours := o.hasRoom(batch)
	records := make([]Record, len(batch))
	for i := range batch {
		records[i] = newRecord(&batch[i], now)
		switch progress := &records[i].Progress; {
		case batch[i].NotBefore.After(now):
			progress.DueAt = batch[i].NotBefore
		case ours:
			progress.ClaimedBy, progress.DueAt = o.token, now.Add(o.grace)
		default:
			progress.DueAt = now
		}
	}
	errs := saver.Save(ctx, records...)
	var send []Envelope
	failed := false
	for i := range batch {
		var err error
		if errs != nil {
			err = errs[i]
		}
		switch {
		case err == nil:
			if records[i].ClaimedBy != "" {
				send = append(send, batch[i])
			}
		case errors.Is(err, ErrExists): // it is durable, and somebody sees to it
			errs[i] = nil
		case !errors.Is(err, ErrInvalid):
			errs[i] = unsaved(ctx, err)
			failed = true
		default:
			failed = true
		}
	}
	if !failed {
		errs = nil
	}
	return errs, send
}

// newRecord is a message that has just been saved.
func newRecord(envelope *Envelope, now time.Time) Record {
	return Record{Message: envelope.Message, Progress: Progress{
		Status:     StatusPending,
		Generation: envelope.Generation,
		RetryCount: envelope.Attempt,
		History:    envelope.History,
		UpdatedAt:  now,
	}}
}

// unsaved is the error of a message that may or may not have been saved.
func unsaved(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause)
	}
	return &unsavedError{err: err}
}

// unsavedError is ErrOutcomeUnknown with its cause.
type unsavedError struct{ err error }

func (e *unsavedError) Error() string        { return "delivery: outcome unknown: save: " + e.err.Error() }
func (e *unsavedError) Is(target error) bool { return target == ErrOutcomeUnknown }
func (e *unsavedError) Unwrap() error        { return e.err }

// replay begins the next generation of envelopes that have a record, and saves
// one of those that have none. It answers like save.
func (o *outbox) replay(ctx context.Context, batch []Envelope, now time.Time) ([]error, []Envelope) {
	updates := make([]Update, len(batch))
	for i := range batch {
		updates[i] = Update{
			ID: batch[i].ID, Status: StatusPending, Generation: batch[i].Generation, RetryCount: batch[i].Attempt,
			At: now, DueAt: now.Add(o.grace), ClaimedBy: o.token,
		}
		if batch[i].NotBefore.After(now) {
			updates[i].DueAt, updates[i].ClaimedBy = batch[i].NotBefore, ""
		}
	}
	_, updated := o.store.Update(ctx, updates...)
	errs := make([]error, len(batch))
	var send, missing []Envelope
	var places []int
	for i := range batch {
		var err error
		if updated != nil {
			err = updated[i]
		}
		switch {
		case err == nil:
			if updates[i].ClaimedBy != "" {
				send = append(send, batch[i])
			}
		case errors.Is(err, ErrLate): // this generation is under way, or the message done
		case errors.Is(err, ErrNotFound):
			missing, places = append(missing, batch[i]), append(places, i)
		default:
			errs[i] = unsaved(ctx, err)
		}
	}
	if len(missing) > 0 {
		saved, more := o.save(ctx, o.store, missing, now)
		send = append(send, more...)
		for k, err := range saved {
			errs[places[k]] = err
		}
	}
	return errs, send
}

func (o *outbox) hasRoom(batch []Envelope) bool {
	size := 0
	for i := range batch {
		size += len(batch[i].Body)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count+len(batch) <= o.most && o.bytes+size <= outboxBytes
}

// send takes over envelopes that were saved at the time given. It copies what
// the caller may change.
func (o *outbox) send(envelopes []Envelope, saved time.Time) {
	if len(envelopes) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range envelopes {
		envelope := envelopes[i]
		envelope.Body = bytes.Clone(envelope.Body)
		envelope.Headers = maps.Clone(envelope.Headers)
		o.waiting = append(o.waiting, outgoing{envelope: envelope, saved: saved})
		o.count++
		o.bytes += len(envelope.Body)
	}
	if !o.sending {
		o.sending = true
		go o.run()
	}
}

func (o *outbox) run() {
	for batch := o.take(); batch != nil; batch = o.take() {
		now := time.Now()
		fresh := make([]Envelope, 0, len(batch))
		for i := range batch {
			// A RetryWorker may take over at the end of the grace.
			if now.Sub(batch[i].saved) < o.grace/2 {
				fresh = append(fresh, batch[i].envelope)
			}
		}
		o.give(fresh)
		o.mu.Lock()
		o.count -= len(batch)
		for i := range batch {
			o.bytes -= len(batch[i].envelope.Body)
		}
		o.mu.Unlock()
	}
}

func (o *outbox) take() []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		o.waiting = nil
		o.sending = false
		o.changed.Broadcast()
		return nil
	}
	n := min(len(o.waiting), outboxBatch)
	batch := o.waiting[:n:n]
	o.waiting = o.waiting[n:]
	return batch
}

// give sends a batch, and marks what was confirmed.
func (o *outbox) give(batch []Envelope) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(o.grace/4, 30*time.Second))
	errs := o.transport.Send(ctx, batch)
	cancel()
	now := time.Now()
	var marks []Update
	var failure error
	failures := 0
	for i := range batch {
		if errs != nil && errs[i] != nil {
			failure = errs[i]
			failures++
			continue
		}
		mark := Update{
			ID: batch[i].ID, Status: StatusQueued, Generation: batch[i].Generation, RetryCount: batch[i].Attempt,
			At: now, OnlyIfClaimedBy: o.token,
		}
		if o.session != "" {
			mark.ClaimedBy, mark.DueAt = o.session, now.Add(max(o.grace, sessionHold))
		}
		marks = append(marks, mark)
	}
	if failure != nil {
		o.logger.LogAttrs(ctx, slog.LevelWarn, "saved messages not sent, a retry worker will",
			slog.Int("count", failures), slog.Any("error", failure))
	}
	o.mark(marks)
}

func (o *outbox) mark(marks []Update) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.marks = append(o.marks, marks...)
	if len(o.marks) > 0 && !o.marking {
		o.marking = true
		time.AfterFunc(min(markDelay, o.grace/8), func() { o.flush(context.Background()) })
	}
}

// flush writes the marks that have gathered. What can't be written is tried again
// with those that gather next.
func (o *outbox) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		o.mu.Lock()
		n := min(len(o.marks), markBatch)
		batch := o.marks[:n:n]
		o.marks = o.marks[n:]
		if n == 0 {
			o.marks = nil
			o.marking = false
			o.changed.Broadcast()
		}
		o.mu.Unlock()
		if n == 0 {
			return
		}
		_, errs := o.store.Update(ctx, batch...)
		if errs == nil {
			continue
		}
		var again []Update
		for i, err := range errs {
			if err != nil && !errors.Is(err, ErrLate) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid) {
				again = append(again, batch[i])
			}
		}
		if len(again) == 0 {
			continue
		}
		o.mu.Lock()
		o.marking = false
		o.changed.Broadcast()
		if len(o.marks)+len(again) > maxMarks {
			again = nil
		}
		o.mu.Unlock()
		o.mark(again)
		return
	}
}

// close waits until nothing is being sent and all marks are written, or ctx
// ends. What remains is a RetryWorker's.
func (o *outbox) close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changed.Broadcast()
	})
	defer stop()
	o.mu.Lock()
	o.closed = true
	for o.sending && ctx.Err() == nil {
		o.changed.Wait()
	}
	o.mu.Unlock()
	o.flush(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	for (o.sending || o.marking) && ctx.Err() == nil {
		o.changed.Wait()
	}
	if o.sending || o.marking {
		return ctx.Err()
	}
	return nil
}

func (o *outbox) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}
