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

// tappedTransport shows every ack before it is given, and can keep it back, and
// lets somebody else see to what is sent. Functions that are nil are not called.
type tappedTransport struct {
	*rabbitmq.Transport
	// onAck is told which message is about to be acked, "" for a malformed one.
	// When it returns false the ack is lost on the way.
	onAck func(id string, in delivery.Incoming) bool
	// onSend sends by means of send.
	onSend func(ctx context.Context, batch []delivery.Envelope, send sender) []error
}

type sender func(ctx context.Context, batch []delivery.Envelope) []error

func (t *tappedTransport) Send(ctx context.Context, batch []delivery.Envelope) []error {
	if t.onSend == nil {
		return t.Transport.Send(ctx, batch)
	}
	return t.onSend(ctx, batch, t.Transport.Send)
}

func (t *tappedTransport) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	subscription, err := t.Transport.Subscribe(ctx, config)
	if err != nil || t.onAck == nil {
		return subscription, err
	}
	return &tappedSubscription{Subscription: subscription, Pauser: subscription.(delivery.Pauser), onAck: t.onAck}, nil
}

type tappedSubscription struct {
	delivery.Subscription
	delivery.Pauser
	onAck func(id string, in delivery.Incoming) bool
}

func (s *tappedSubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	batch, err := s.Subscription.Receive(ctx)
	for i := range batch {
		batch[i] = &tappedIncoming{Incoming: batch[i], onAck: s.onAck}
	}
	return batch, err
}

type tappedIncoming struct {
	delivery.Incoming
	onAck func(id string, in delivery.Incoming) bool
}

func (in *tappedIncoming) Ack() error {
	id := ""
	if envelope, err := in.Envelope(); err == nil {
		id = envelope.ID
	}
	if !in.onAck(id, in.Incoming) {
		return nil
	}
	return in.Incoming.Ack()
}

// tappedStore shows the steps of the idempotency protocol. Functions that are
// nil are not called.
type tappedStore struct {
	idempotency.Store
	beforeClaim, afterClaim, afterComplete func(key string)
	completed                              atomic.Int64
}

// Ping implements delivery.Pinger, as all of the stores do.
func (s *tappedStore) Ping(ctx context.Context) error {
	return s.Store.(delivery.Pinger).Ping(ctx)
}

// Check implements delivery.Checker where the store does.
func (s *tappedStore) Check(ctx context.Context) error {
	if checker, ok := s.Store.(delivery.Checker); ok {
		return checker.Check(ctx)
	}
	return nil
}

func (s *tappedStore) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	if s.beforeClaim != nil {
		s.beforeClaim(key)
	}
	answer, err := s.Store.Claim(ctx, key, token, attempt, lease)
	if err == nil && answer.State == idempotency.Claimed && s.afterClaim != nil {
		s.afterClaim(key)
	}
	return answer, err
}

func (s *tappedStore) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	completion, err := s.Store.Complete(ctx, key, token, window)
	if err == nil {
		s.completed.Add(1)
		if s.afterComplete != nil {
			s.afterComplete(key)
		}
	}
	return completion, err
}

// tappedRecords shows what became of each update.
type tappedRecords struct {
	*sqlstore.Store
	onUpdate func(update delivery.Update, err error)
}

func (s *tappedRecords) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
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

// failingLetters is a dead-letter store that can go missing.
type failingLetters struct {
	delivery.DeadLetterer
	down  atomic.Bool
	tries atomic.Int64
	onPut func(letters []delivery.DeadLetter) // of those that were stored
}

var errMissing = errors.New("the dead-letter store is missing")

func (f *failingLetters) DeadLetter(ctx context.Context, letters ...delivery.DeadLetter) error {
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
