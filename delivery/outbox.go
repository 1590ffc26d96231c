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

// Saver saves records. A Store is one. A Saver that saves in a transaction of the
// host makes the message a part of that.
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
)

// outbox saves messages and then sends them in the background, in the order in
// which they were saved. Its goroutine lives while there is something to send.
//
// What it does not get to (there is no room, the transport is down, the process
// dies) is a RetryWorker's, from the record's DueAt on.
type outbox struct {
	store       Store
	transport   Transport
	queue       string // of the records
	token       string // claims what this outbox has not sent yet
	session     string // claims what is in a Volatile transport, else empty
	grace       time.Duration
	maxMessages int
	logger      *slog.Logger
	life        context.Context // of what goes on in the background
	stop        context.CancelFunc

	confirmations *confirmations
	inDoubt       inDoubt

	mu       sync.Mutex
	sent     sync.Cond // everything was sent
	waiting  []outgoing
	messages int // waiting and being sent
	bytes    int
	sending  bool
	ended    bool
}

// outgoing is a saved message that waits to be sent.
type outgoing struct {
	envelope Envelope
	token    string // of its claim
	saved    time.Time
	unsure   bool // the host says that it is saved: the store has to say so, too
}

func newOutbox(transport Transport, config *PublisherConfig) *outbox {
	o := &outbox{
		store:       config.Store,
		transport:   transport,
		queue:       config.Queue,
		token:       NewID(),
		session:     sessionOf(transport),
		grace:       config.PendingGrace,
		maxMessages: config.MaxOutgoing,
		logger:      config.Logger,
	}
	o.life, o.stop = context.WithCancel(context.Background())
	o.confirmations = newConfirmations(o.life, config.Store, config.PendingGrace/8)
	o.sent.L = &o.mu
	return o
}

// publish saves a batch and has it sent. What an earlier call had saved without
// learning of it, it sends, too.
func (o *outbox) publish(ctx context.Context, batch []Envelope, now time.Time) []error {
	errs, saved, exist := o.save(ctx, o.store, batch, now)
	o.inDoubt.add(batch, errs, o.token)
	o.inDoubt.forget(saved)
	o.enqueue(saved, o.token, now)
	o.resume(ctx, exist)
	return errs
}

// save returns an error for each envelope that is not durable by saver now, those
// that are to be sent once it is certain that they stay saved, and the IDs of those
// that exist already.
func (o *outbox) save(ctx context.Context, saver Saver, batch []Envelope, now time.Time) (errs []error, saved []Envelope, exist []string) {
	records := o.pendingRecords(batch, now)
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
				saved = append(saved, batch[i])
			}
		case errors.Is(err, ErrExists): // it is durable, and somebody sees to it
			errs[i] = nil
			exist = append(exist, batch[i].ID)
		default:
			errs[i] = saveError(ctx, err)
			failed = true
		}
	}
	if !failed {
		errs = nil
	}
	return errs, saved, exist
}

// pendingRecords are the records of a batch that is about to be saved: claimed by
// this outbox if it has room for them, else due for a RetryWorker.
func (o *outbox) pendingRecords(batch []Envelope, now time.Time) []Record {
	room := o.hasRoom(batch)
	records := make([]Record, len(batch))
	for i := range batch {
		records[i] = newRecord(&batch[i], o.queue, now)
		switch progress := &records[i].Progress; {
		case batch[i].NotBefore.After(now):
			progress.DueAt = batch[i].NotBefore
		case room:
			progress.ClaimedBy, progress.DueAt = o.token, now.Add(o.grace)
		default:
			progress.DueAt = now
		}
	}
	return records
}

// saveError is the error of a message that may or may not have been saved, unless
// it never will be.
func saveError(ctx context.Context, err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause)
	}
	return &unknownSaveError{err: err}
}

// unknownSaveError is ErrOutcomeUnknown with its cause.
type unknownSaveError struct{ err error }

func (e *unknownSaveError) Error() string        { return "delivery: outcome unknown: save: " + e.err.Error() }
func (e *unknownSaveError) Is(target error) bool { return target == ErrOutcomeUnknown }
func (e *unknownSaveError) Unwrap() error        { return e.err }

// replay begins the next generation of envelopes that have a record, saves those
// that have none, and has them sent.
func (o *outbox) replay(ctx context.Context, batch []Envelope, now time.Time) []error {
	token := NewID() // tells what begins now from what had begun before
	progress, errs := updateEach(ctx, o.store, o.generationUpdates(batch, token, now)...)
	var begun, missing []Envelope
	var exist []string
	var places []int // of what is missing
	for i, err := range errs {
		switch {
		case err == nil && progress[i].ClaimedBy == token:
			begun = append(begun, batch[i])
		case err == nil:
			exist = append(exist, batch[i].ID)
		case errors.Is(err, ErrLate): // this generation is under way, or the message done
			errs[i] = nil
		case errors.Is(err, ErrNotFound):
			errs[i] = nil
			missing, places = append(missing, batch[i]), append(places, i)
		default:
			errs[i] = saveError(ctx, err)
		}
	}
	o.inDoubt.add(batch, errs, token)
	o.inDoubt.forget(begun)
	o.enqueue(begun, token, now)
	o.resume(ctx, exist)
	if len(missing) > 0 {
		for k, err := range o.publish(ctx, missing, now) {
			errs[places[k]] = err
		}
	}
	return errs
}

// generationUpdates are the updates by which the generations of a batch begin:
// claimed by token if the outbox has room for them, else due for a RetryWorker.
func (o *outbox) generationUpdates(batch []Envelope, token string, now time.Time) []Update {
	room := o.hasRoom(batch)
	updates := make([]Update, len(batch))
	for i := range batch {
		update := &updates[i]
		*update = Update{
			ID: batch[i].ID, Status: StatusPending, Queue: o.queue, Generation: batch[i].Generation, RetryCount: batch[i].Attempt,
			At: now, DueAt: now,
		}
		switch {
		case batch[i].NotBefore.After(now):
			update.DueAt = batch[i].NotBefore
		case room:
			update.DueAt, update.ClaimedBy = now.Add(o.grace), token
		}
	}
	return updates
}

// resume has those of the messages sent that this outbox had saved without
// learning of it, if they are still its to send.
func (o *outbox) resume(ctx context.Context, exist []string) {
	ids, tokens := o.inDoubt.take(exist)
	if len(ids) == 0 {
		return
	}
	records, errs := getEach(ctx, o.store, ids...)
	for i, err := range errs {
		if unanswered(err) {
			o.inDoubt.remember(ids[i], tokens[i])
			continue
		}
		if err == nil && records[i].Status == StatusPending && records[i].ClaimedBy == tokens[i] {
			o.enqueue([]Envelope{records[i].Envelope()}, tokens[i], records[i].DueAt.Add(-o.grace))
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
	return o.messages+len(batch) <= o.maxMessages && o.bytes+size <= outboxBytes
}

// enqueue takes over envelopes that were saved at the time given, claimed by token,
// to be sent. It copies what the caller may change.
func (o *outbox) enqueue(envelopes []Envelope, token string, saved time.Time) {
	o.add(envelopes, token, saved, false)
}

// committed is enqueue for what was saved in a transaction of the host's, which
// may have been committed without it: a rollback to a savepoint takes it back.
func (o *outbox) committed(envelopes []Envelope, saved time.Time) {
	o.add(envelopes, o.token, saved, true)
}

func (o *outbox) add(envelopes []Envelope, token string, saved time.Time, unsure bool) {
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
		added[i] = outgoing{envelope: envelope, token: token, saved: saved, unsure: unsure}
		size += len(envelope.Body)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	o.waiting = append(o.waiting, added...)
	o.messages += len(added)
	o.bytes += size
	if !o.sending {
		o.sending = true
		go o.sendWaiting()
	}
}

func (o *outbox) sendWaiting() {
	for batch := o.take(); batch != nil; batch = o.take() {
		sure := o.lookUp(batch)
		now := time.Now()
		envelopes, tokens := make([]Envelope, 0, len(batch)), make([]string, 0, len(batch))
		for i := range batch {
			// A RetryWorker may take over at the end of the grace.
			if now.Sub(batch[i].saved) < o.grace/2 && (!batch[i].unsure || sure[batch[i].envelope.ID]) {
				envelopes, tokens = append(envelopes, batch[i].envelope), append(tokens, batch[i].token)
			}
		}
		o.send(envelopes, tokens)
		o.mu.Lock()
		o.messages -= len(batch)
		for i := range batch {
			o.bytes -= len(batch[i].envelope.Body)
		}
		o.mu.Unlock()
		clear(batch) // what is sent need not stay in memory until the rest is
	}
}

// lookUp returns which of the messages of a batch that it is unsure of are saved,
// and still the outbox's to send. What the store does not answer for is a
// RetryWorker's.
func (o *outbox) lookUp(batch []outgoing) (sure map[string]bool) {
	var ids, tokens []string
	for i := range batch {
		if batch[i].unsure {
			ids, tokens = append(ids, batch[i].envelope.ID), append(tokens, batch[i].token)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(o.life, min(o.grace/4, settleTimeout))
	defer cancel()
	records, errs := getEach(ctx, o.store, ids...)
	sure = make(map[string]bool, len(ids))
	for i, err := range errs {
		sure[ids[i]] = err == nil && records[i].Status == StatusPending && records[i].ClaimedBy == tokens[i]
	}
	return sure
}

func (o *outbox) take() []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		o.waiting = nil
		o.sending = false
		o.sent.Broadcast()
		return nil
	}
	n := min(len(o.waiting), outboxBatch)
	batch := o.waiting[:n:n]
	o.waiting = o.waiting[n:]
	return batch
}

// send sends a batch, claimed by tokens, and has recorded what the transport
// confirmed.
func (o *outbox) send(batch []Envelope, tokens []string) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(o.life, min(o.grace/4, 30*time.Second))
	errs := eachOf(o.transport.Send(ctx, batch), len(batch))
	cancel()
	logQueued(o.life, o.logger, batch, errs)
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
		o.logger.LogAttrs(ctx, slog.LevelWarn, "saved messages not sent",
			slog.Int("count", failures), errorAttr(failure))
	}
	o.confirmations.add(confirmed)
}

// finish waits until everything is sent and recorded, or ctx ends.
func (o *outbox) finish(ctx context.Context) error {
	if err := o.waitUntilSent(ctx); err != nil {
		return err
	}
	return o.confirmations.finish(ctx)
}

// end drops what remains, which is a RetryWorker's then, breaks off what goes on, and
// returns what has kept the store from recording it.
func (o *outbox) end() error {
	defer o.stop()
	o.mu.Lock()
	o.ended, o.waiting = true, nil
	o.mu.Unlock()
	return o.confirmations.end()
}

func (o *outbox) waitUntilSent(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.sent.Broadcast()
	})
	defer stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.sending {
		if err := ctx.Err(); err != nil {
			return err
		}
		o.sent.Wait()
	}
	return nil
}
