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

// New returns a transport with empty queues. It does not fail: with a config
// that can't be used, every use and Err return what is wrong with it.
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
	q.ripen(time.Now())
	return t
}

// Another returns one more transport on the same queues, as another process on
// the same broker would have it. Closing one leaves the others alone. What waits
// stays when all are closed, and is there for the next one; what is due by then
// comes at once.
func (t *Transport) Another() *Transport {
	if t == nil || t.queues == nil {
		return t
	}
	another := t.queues.transport()
	another.fault = t.fault
	return another
}

// Err is what is wrong with the Config, or nil. It matches ErrConfig and names
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
// same.
func (t *Transport) Session() string {
	if t == nil || t.queues == nil {
		return ""
	}
	return t.queues.session
}

// Send implements delivery.Transport. While there is no room it waits.
func (t *Transport) Send(ctx context.Context, batch []delivery.Envelope) []error {
	return t.send(ctx, 0, batch)
}

// SendAfter implements delivery.Delayer, with any delay. While there is no room
// for delayed messages it waits; time alone makes room there.
func (t *Transport) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	return t.send(ctx, delay, batch)
}

// chunkSize is how many messages of a batch share one allocation, and with it
// their end: the memory of a chunk is free when its last message is.
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
				errs = set(errs, batch, start+i, err)
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

// enter puts the chunk into the queues, but for the messages without a level,
// as room comes. It returns how many it has dealt with, and why not all.
func (t *Transport) enter(ctx context.Context, chunk []message, delayed bool) (int, error) {
	q := t.queues
	q.mu.Lock()
	defer q.mu.Unlock()
	gate := &q.ready
	if delayed {
		gate = &q.delayed
	}
	var mine *turn
	defer func() {
		if mine != nil {
			gate.leave(mine)
		}
	}()
	dealt := 0
	for {
		if t.closed {
			return dealt, delivery.ErrClosed
		}
		room := gate.room(mine)
		for dealt < len(chunk) {
			m := &chunk[dealt]
			if m.level >= 0 {
				if room == 0 {
					break
				}
				room--
				if delayed {
					q.delay(m)
				} else {
					q.add(m)
				}
			}
			dealt++
		}
		if delayed {
			q.ripen(time.Now())
		} else {
			q.wake()
		}
		if dealt == len(chunk) {
			return dealt, nil
		}
		if mine == nil {
			mine = gate.queue()
		}
		q.mu.Unlock()
		err := t.await(ctx, mine)
		q.mu.Lock()
		if err != nil {
			return dealt, err
		}
	}
}

// await waits for a turn.
func (t *Transport) await(ctx context.Context, mine *turn) error {
	select {
	case <-mine.look:
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

// Depth implements delivery.Depther. It counts what is ready, not what is
// delayed.
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

// Close implements delivery.Transport. What waits, and what its subscriptions
// had in hand, stays in the queues for others made by Another.
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

// set notes the error of one envelope.
func set(errs []error, batch []delivery.Envelope, i int, err error) []error {
	if errs == nil {
		errs = make([]error, len(batch))
	}
	errs[i] = err
	return errs
}

// fill notes the error of all envelopes from one on that have none yet.
func fill(errs []error, batch []delivery.Envelope, from int, err error) []error {
	for i := from; i < len(batch); i++ {
		if errs == nil || errs[i] == nil {
			errs = set(errs, batch, i, err)
		}
	}
	return errs
}
