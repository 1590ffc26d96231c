package delivery

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
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
	// closeTimeout is how long a close without a deadline takes at least, if it
	// has to: a slow store deserves more than a short grace.
	closeTimeout = 30 * time.Second
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

	marks  *marks
	doubts doubts

	mu      sync.Mutex
	changed sync.Cond // publishers or sending got to their end
	callers int       // calls of the publisher that go on
	waiting []outgoing
	count   int // messages waiting and being sent
	bytes   int
	sending bool
	closing bool
	ended   bool
}

type outgoing struct {
	envelope Envelope
	token    string // claims it for us
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
		marks:     newMarks(config.Store, config.PendingGrace/8),
	}
	o.changed.L = &o.mu
	return o
}

// enter says whether a call of the publisher may begin, which then has to leave.
func (o *outbox) enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return false
	}
	o.callers++
	return true
}

func (o *outbox) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.callers--; o.closing && o.callers == 0 {
		o.changed.Broadcast()
	}
}

// publish saves a batch and sends it. What was saved before, by a call that did
// not learn of it, it sends, too.
func (o *outbox) publish(ctx context.Context, batch []Envelope, now time.Time) []error {
	errs, send, there := o.save(ctx, o.store, batch, now)
	o.doubts.add(batch, errs, o.token)
	o.doubts.settle(send)
	o.send(send, o.token, now)
	o.resume(ctx, there)
	return errs
}

// save returns an error for each envelope that is not durable by saver now, those
// that are to be sent once it is certain that they stay, and the IDs of those that
// were saved before.
func (o *outbox) save(ctx context.Context, saver Saver, batch []Envelope, now time.Time) (errs []error, send []Envelope, there []string) {
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
	if errs = saver.Save(ctx, records...); errs != nil {
		errs = eachOf(errs, len(batch))
	}
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
			there = append(there, batch[i].ID)
		default:
			errs[i] = unsaved(ctx, err)
			failed = true
		}
	}
	if !failed {
		errs = nil
	}
	return errs, send, there
}

// unsaved is the error of a message that may or may not have been saved, unless
// it never will be.
func unsaved(ctx context.Context, err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
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

// replay begins the next generation of envelopes that have a record, saves those
// that have none, and sends them.
func (o *outbox) replay(ctx context.Context, batch []Envelope, now time.Time) []error {
	token := NewID() // tells what begins now from what had begun before
	ours := o.hasRoom(batch)
	updates := make([]Update, len(batch))
	for i := range batch {
		update := &updates[i]
		*update = Update{
			ID: batch[i].ID, Status: StatusPending, Generation: batch[i].Generation, RetryCount: batch[i].Attempt,
			At: now, DueAt: now,
		}
		switch {
		case batch[i].NotBefore.After(now):
			update.DueAt = batch[i].NotBefore
		case ours:
			update.DueAt, update.ClaimedBy = now.Add(o.grace), token
		}
	}
	progress, errs := o.store.Update(ctx, updates...)
	errs = eachOf(errs, len(batch))
	if len(progress) != len(batch) {
		progress = make([]Progress, len(batch))
	}
	var send, missing []Envelope
	var there []string
	var places []int
	for i, err := range errs {
		switch {
		case err == nil && progress[i].ClaimedBy == token:
			send = append(send, batch[i])
		case err == nil:
			there = append(there, batch[i].ID)
		case errors.Is(err, ErrLate): // this generation is under way, or the message done
			errs[i] = nil
		case errors.Is(err, ErrNotFound):
			errs[i] = nil
			missing, places = append(missing, batch[i]), append(places, i)
		default:
			errs[i] = unsaved(ctx, err)
		}
	}
	o.doubts.add(batch, errs, token)
	o.doubts.settle(send)
	o.send(send, token, now)
	o.resume(ctx, there)
	if len(missing) > 0 {
		for k, err := range o.publish(ctx, missing, now) {
			errs[places[k]] = err
		}
	}
	return errs
}

// resume sends those of the messages there that this publisher had saved without
// learning of it, if they are still its to send.
func (o *outbox) resume(ctx context.Context, there []string) {
	ids, tokens := o.doubts.take(there)
	if len(ids) == 0 {
		return
	}
	records, errs := o.store.Get(ctx, ids...)
	errs = eachOf(errs, len(ids))
	for i, err := range errs {
		if err == nil && len(records) != len(ids) || unanswered(err) {
			o.doubts.keep(ids[i], tokens[i])
			continue
		}
		if err == nil && records[i].Status == StatusPending && records[i].ClaimedBy == tokens[i] {
			o.send([]Envelope{records[i].Envelope()}, tokens[i], records[i].DueAt.Add(-o.grace))
		}
	}
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

// send takes over envelopes that were saved at the time given, claimed by token.
// It copies what the caller may change.
func (o *outbox) send(envelopes []Envelope, token string, saved time.Time) {
	if len(envelopes) == 0 {
		return
	}
	added := make([]outgoing, len(envelopes))
	size := 0
	for i := range envelopes {
		envelope := envelopes[i]
		envelope.Body = bytes.Clone(envelope.Body)
		envelope.Headers = maps.Clone(envelope.Headers)
		envelope.History = slices.Clone(envelope.History)
		added[i] = outgoing{envelope: envelope, token: token, saved: saved}
		size += len(envelope.Body)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	o.waiting = append(o.waiting, added...)
	o.count += len(added)
	o.bytes += size
	if !o.sending {
		o.sending = true
		go o.run()
	}
}

func (o *outbox) run() {
	for batch := o.take(); batch != nil; batch = o.take() {
		now := time.Now()
		fresh, tokens := make([]Envelope, 0, len(batch)), make([]string, 0, len(batch))
		for i := range batch {
			// A RetryWorker may take over at the end of the grace.
			if now.Sub(batch[i].saved) < o.grace/2 {
				fresh, tokens = append(fresh, batch[i].envelope), append(tokens, batch[i].token)
			}
		}
		o.give(fresh, tokens)
		o.mu.Lock()
		o.count -= len(batch)
		for i := range batch {
			o.bytes -= len(batch[i].envelope.Body)
		}
		o.mu.Unlock()
		clear(batch) // what is sent need not stay in memory until the rest is
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

// give sends a batch, claimed by tokens, and marks what was confirmed.
func (o *outbox) give(batch []Envelope, tokens []string) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(o.grace/4, 30*time.Second))
	errs := eachOf(o.transport.Send(ctx, batch), len(batch))
	cancel()
	now := time.Now()
	confirmed := make([]Update, 0, len(batch))
	var failure error
	failures := 0
	for i, err := range errs {
		if err != nil {
			failure = err
			failures++
			continue
		}
		confirmed = append(confirmed, Update{
			ID: batch[i].ID, Status: StatusQueued, Generation: batch[i].Generation, RetryCount: batch[i].Attempt,
			At: now, OnlyIfClaimedBy: tokens[i], ClaimedBy: o.session,
		})
	}
	if failure != nil {
		o.logger.LogAttrs(ctx, slog.LevelWarn, "saved messages not sent, a retry worker will",
			slog.Int("count", failures), slog.Any("error", failure))
	}
	o.marks.add(confirmed)
}

// close waits until the calls that have begun are over, nothing is being sent and
// all marks are written, or ctx ends. What remains is a RetryWorker's then, and
// nobody here goes on with it.
func (o *outbox) close(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		// After the grace RetryWorkers see to everything, and marks come too late.
		limited, cancel := context.WithTimeout(ctx, max(o.grace, closeTimeout))
		defer cancel()
		ctx = limited
	}
	err := o.settle(ctx)
	if err == nil {
		err = o.marks.finish(ctx)
	}
	o.mu.Lock()
	o.ended, o.waiting = true, nil
	o.mu.Unlock()
	failure := o.marks.end()
	switch {
	case err == nil:
		return nil
	case failure == nil:
		return ctx.Err()
	}
	return errors.Join(ctx.Err(), failure)
}

// settle waits until nothing more comes to be marked.
func (o *outbox) settle(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changed.Broadcast()
	})
	defer stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
	for o.callers > 0 || o.sending {
		if err := ctx.Err(); err != nil {
			return err
		}
		o.changed.Wait()
	}
	return nil
}

func (o *outbox) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}
