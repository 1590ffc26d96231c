package faults

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/idempotency"
)

// hookedTransport calls a function before every ack, which may suppress the ack, and
// another in place of Send. Functions that are nil are not called.
type hookedTransport struct {
	*rabbitmq.Transport
	// onAck is called with the ID of the message that is about to be acked, or "" for
	// a malformed one. If it returns false, the ack is lost.
	onAck func(id string, in delivery.Incoming) bool
	// onSend sends the batch by calling send.
	onSend func(ctx context.Context, batch []delivery.Envelope, send sender) []error
}

type sender func(ctx context.Context, batch []delivery.Envelope) []error

func (t *hookedTransport) Send(ctx context.Context, batch []delivery.Envelope) []error {
	if t.onSend == nil {
		return t.Transport.Send(ctx, batch)
	}
	return t.onSend(ctx, batch, t.Transport.Send)
}

func (t *hookedTransport) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	subscription, err := t.Transport.Subscribe(ctx, config)
	if err != nil || t.onAck == nil {
		return subscription, err
	}
	return &hookedSubscription{Subscription: subscription, Pauser: subscription.(delivery.Pauser), onAck: t.onAck}, nil
}

type hookedSubscription struct {
	delivery.Subscription
	delivery.Pauser
	onAck func(id string, in delivery.Incoming) bool
}

func (s *hookedSubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	batch, err := s.Subscription.Receive(ctx)
	for i := range batch {
		batch[i] = &hookedIncoming{Incoming: batch[i], onAck: s.onAck}
	}
	return batch, err
}

type hookedIncoming struct {
	delivery.Incoming
	onAck func(id string, in delivery.Incoming) bool
}

func (in *hookedIncoming) Ack() error {
	id := ""
	if envelope, err := in.Envelope(); err == nil {
		id = envelope.ID
	}
	if !in.onAck(id, in.Incoming) {
		return nil
	}
	return in.Incoming.Ack()
}

// hookedKeyStore calls functions around the steps of the idempotency protocol. Those
// that are nil are not called.
type hookedKeyStore struct {
	idempotency.Store
	beforeClaim, afterClaim, afterComplete func(key string)
	completed                              atomic.Int64
}

// Ping implements delivery.Pinger, as all of the stores do.
func (s *hookedKeyStore) Ping(ctx context.Context) error {
	return s.Store.(delivery.Pinger).Ping(ctx)
}

// Check implements delivery.Checker where the store does.
func (s *hookedKeyStore) Check(ctx context.Context) error {
	if checker, ok := s.Store.(delivery.Checker); ok {
		return checker.Check(ctx)
	}
	return nil
}

func (s *hookedKeyStore) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	if s.beforeClaim != nil {
		s.beforeClaim(key)
	}
	answer, err := s.Store.Claim(ctx, key, token, attempt, lease)
	if err == nil && answer.State == idempotency.Claimed && s.afterClaim != nil {
		s.afterClaim(key)
	}
	return answer, err
}

func (s *hookedKeyStore) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	completion, err := s.Store.Complete(ctx, key, token, window)
	if err == nil {
		s.completed.Add(1)
		if s.afterComplete != nil {
			s.afterComplete(key)
		}
	}
	return completion, err
}

// hookedMessageStore calls a function with the result of each update.
type hookedMessageStore struct {
	*sqlstore.Store
	onUpdate func(update delivery.Update, err error)
}

func (s *hookedMessageStore) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	progress, errs := s.Store.Update(ctx, updates...)
	for i := range updates {
		var err error
		if errs != nil {
			err = errs[i]
		}
		s.onUpdate(updates[i], err)
	}
	return progress, errs
}

// failingDeadLetters is a dead-letter store that can be made to fail.
type failingDeadLetters struct {
	delivery.DeadLetterer
	down  atomic.Bool
	tries atomic.Int64
	onPut func(letters []delivery.DeadLetter) // of those that were stored
}

var errMissing = errors.New("the dead-letter store is missing")

func (f *failingDeadLetters) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
	f.tries.Add(1)
	if f.down.Load() {
		return errMissing
	}
	err := f.DeadLetterer.DeadLetter(ctx, letters...)
	if err == nil && f.onPut != nil {
		f.onPut(letters)
	}
	return err
}
