package memory

import (
	"context"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Transport is a delivery.Transport within the process. Its methods may be
// called by any number of goroutines at once.
type Transport struct {
	queues *queues
	fault  error
	done   chan struct{} // closed by Close

	// Guarded by the queues' lock.
	closed        bool
	subscriptions map[*subscription]struct{}
}

var (
	_ delivery.Transport    = (*Transport)(nil)
	_ delivery.Delayer      = (*Transport)(nil)
	_ delivery.Depther      = (*Transport)(nil)
	_ delivery.Pinger       = (*Transport)(nil)
	_ delivery.Namer        = (*Transport)(nil)
	_ delivery.Volatile     = (*Transport)(nil)
	_ delivery.DeadLetterer = (*Transport)(nil)
)

// New returns a transport with empty queues. It does not fail: when the config
// can't be used, every method that can fail and Err return what is wrong with
// it.
func New(config Config) *Transport {
	config, err := config.withDefaults()
	t := newQueues(config).transport()
	t.fault = err
	return t
}

func (q *queues) transport() *Transport {
	t := &Transport{queues: q, done: make(chan struct{}), subscriptions: map[*subscription]struct{}{}}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open++
	q.releaseDue(time.Now())
	return t
}

// Another returns one more transport on the same queues, as another process on
// the same broker would have it. Closing one leaves the others open. When all
// are closed, the messages stay for the next one, and those that have become
// due by then come at once.
func (t *Transport) Another() *Transport {
	if t == nil || t.queues == nil {
		return t
	}
	another := t.queues.transport()
	another.fault = t.fault
	return another
}

// Err is what is wrong with the Config, or nil. It matches ErrConfig, and names
// every field at fault.
func (t *Transport) Err() error {
	if t == nil || t.queues == nil {
		return fmt.Errorf("%w: the transport was not made by New", ErrConfig)
	}
	return t.fault
}

func (t *Transport) usable(ctx context.Context) error {
	if err := t.Err(); err != nil {
		return err
	}
	return ctx.Err()
}

// Name implements delivery.Namer.
func (t *Transport) Name() string {
	if t == nil || t.queues == nil {
		return ""
	}
	return t.queues.config.Name
}

// Session implements delivery.Volatile. Transports on the same queues have the
// same session.
func (t *Transport) Session() string {
	if t == nil || t.queues == nil {
		return ""
	}
	return t.queues.session
}

// Send implements delivery.Transport. It waits while there is no room.
func (t *Transport) Send(ctx context.Context, batch []delivery.Envelope) []error {
	return t.send(ctx, 0, batch)
}

// SendAfter implements delivery.Delayer, with any delay. It waits while there
// is no room for delayed messages. Room comes only when some of them become
// due.
func (t *Transport) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	return t.send(ctx, delay, batch)
}

// chunkSize is how many messages of a batch share one allocation. The memory of
// a chunk is free when the last of its messages is.
const chunkSize = 64

func (t *Transport) send(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	if len(batch) == 0 {
		return nil
	}
	if err := t.usable(ctx); err != nil {
		return fill(nil, batch, 0, err)
	}
	ready := time.Now()
	if delay > 0 {
		ready = ready.Add(delay)
	}
	var errs []error
	for start := 0; start < len(batch); start += chunkSize {
		chunk := make([]message, min(chunkSize, len(batch)-start))
		for i := range chunk {
			m, envelope := &chunk[i], &batch[start+i]
			if err := t.refuse(envelope); err != nil {
				errs = withError(errs, len(batch), start+i, err)
				m.level = -1
				continue
			}
			m.envelope = *envelope
			isolate(&m.envelope)
			m.level, m.ready = levelOf(envelope.Priority), ready
		}
		if sent, err := t.enter(ctx, chunk, delay > 0); err != nil {
			return fill(errs, batch, start+sent, err)
		}
	}
	return errs
}

func (t *Transport) refuse(envelope *delivery.Envelope) error {
	if !envelope.Priority.Valid() {
		return &delivery.InvalidError{
			Field:   "Priority",
			Problem: fmt.Sprintf("is %d, want %d to %d", envelope.Priority, delivery.Low, delivery.Urgent),
		}
	}
	if size, limit := len(envelope.Body), t.queues.config.MaxBodyBytes; size > limit {
		return &delivery.TooLargeError{Field: "Body", Size: size, Limit: limit}
	}
	return nil
}

// enter puts the messages of the chunk, except those without a level, into the
// queues as room comes. It returns how many it has dealt with, and why not all.
func (t *Transport) enter(ctx context.Context, chunk []message, delayed bool) (int, error) {
	q := t.queues
	q.mu.Lock()
	defer q.mu.Unlock()
	sem := &q.ready
	if delayed {
		sem = &q.delayed
	}
	var waiting *waiter
	defer func() {
		if waiting != nil {
			sem.leave(waiting)
		}
	}()
	dealt := 0
	for {
		if t.closed {
			return dealt, delivery.ErrClosed
		}
		dealt += q.addSome(chunk[dealt:], sem.free(waiting), delayed)
		if delayed {
			q.releaseDue(time.Now())
		} else {
			q.wake()
		}
		if dealt == len(chunk) {
			return dealt, nil
		}
		if waiting == nil {
			waiting = sem.wait()
		}
		q.mu.Unlock()
		err := t.await(ctx, waiting)
		q.mu.Lock()
		if err != nil {
			return dealt, err
		}
	}
}

// await waits to be woken.
func (t *Transport) await(ctx context.Context, w *waiter) error {
	select {
	case <-w.wake:
		return nil
	case <-t.done:
		return delivery.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %d messages wait: %w", delivery.ErrBlocked, t.queues.config.MaxMessages, ctx.Err())
	}
}

// Subscribe implements delivery.Transport.
func (t *Transport) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	if err := t.usable(ctx); err != nil {
		return nil, err
	}
	if config.Prefetch < 0 {
		return nil, fmt.Errorf("%w: SubscribeConfig.Prefetch is %d, want 1 or more, or 0 for the default",
			delivery.ErrConfig, config.Prefetch)
	}
	if config.Prefetch == 0 {
		config.Prefetch = 100
	}
	s := newSubscription(t, config.Prefetch)
	t.queues.mu.Lock()
	defer t.queues.mu.Unlock()
	if t.closed {
		return nil, delivery.ErrClosed
	}
	t.subscriptions[s] = struct{}{}
	return s, nil
}

// Depth implements delivery.Depther. It counts the messages that are ready, and
// not the delayed ones.
func (t *Transport) Depth(ctx context.Context) (map[delivery.Priority]delivery.Depth, error) {
	if err := t.Ping(ctx); err != nil {
		return nil, err
	}
	return t.queues.depth(time.Now()), nil
}

// Ping implements delivery.Pinger.
func (t *Transport) Ping(ctx context.Context) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	t.queues.mu.Lock()
	defer t.queues.mu.Unlock()
	if t.closed {
		return delivery.ErrClosed
	}
	return nil
}

// Close implements delivery.Transport. The messages that wait, and those that
// its subscriptions had in hand, stay in the queues for transports made by
// Another.
func (t *Transport) Close() error {
	if t == nil || t.queues == nil {
		return nil
	}
	q := t.queues
	q.mu.Lock()
	if t.closed {
		q.mu.Unlock()
		return nil
	}
	t.closed = true
	close(t.done)
	subscriptions := t.subscriptions
	t.subscriptions = nil
	q.open--
	q.setTimer(time.Now())
	q.mu.Unlock()
	for s := range subscriptions {
		s.Close() //nolint:errcheck // never fails
	}
	return nil
}

// fill is errs with an error for each envelope, from one on, that has none yet.
func fill(errs []error, batch []delivery.Envelope, from int, err error) []error {
	for i := from; i < len(batch); i++ {
		if errs == nil || errs[i] == nil {
			errs = withError(errs, len(batch), i, err)
		}
	}
	return errs
}
