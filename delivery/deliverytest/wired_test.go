package deliverytest_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/memory"
)

// wired makes the memory transport behave like one with a network: messages of
// others may be malformed, and connections may be lost and made again.
type wired struct {
	*memory.Transport

	mu            sync.Mutex
	subscriptions []*wiredSubscription
}

// rawType marks what was sent without an envelope.
const rawType = "raw"

func wiredHarness(testing.TB) deliverytest.Harness {
	first := memory.New(memory.Config{})
	return deliverytest.Harness{
		Open: func(testing.TB) delivery.Transport { return &wired{Transport: first.Another()} },
		Kill: func(tb testing.TB, transport delivery.Transport) {
			if err := transport.Close(); err != nil {
				tb.Error(err)
			}
		},
		Cut: func(tb testing.TB, transport delivery.Transport) {
			if err := transport.(*wired).cut(); err != nil {
				tb.Error(err)
			}
		},
		SendRaw: func(tb testing.TB, priority delivery.Priority, body []byte) {
			raw := delivery.Envelope{Message: delivery.Message{Type: rawType, Priority: priority, Body: body}}
			if err := errors.Join(first.Send(tb.Context(), []delivery.Envelope{raw})...); err != nil {
				tb.Fatal(err)
			}
		},
		Quiet: 50 * time.Millisecond,
	}
}

func (w *wired) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	inner, err := w.Transport.Subscribe(ctx, config)
	if err != nil {
		return nil, err
	}
	s := &wiredSubscription{transport: w, config: config, inner: inner}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subscriptions = append(w.subscriptions, s)
	return s, nil
}

func (w *wired) cut() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, s := range w.subscriptions {
		errs = append(errs, s.current().Close())
	}
	return errors.Join(errs...)
}

type wiredSubscription struct {
	transport *wired
	config    delivery.SubscribeConfig

	mu     sync.Mutex
	inner  delivery.Subscription
	closed bool
}

func (s *wiredSubscription) current() delivery.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inner
}

func (s *wiredSubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	incomings, err := s.current().Receive(ctx)
	if errors.Is(err, delivery.ErrClosed) {
		return nil, s.reconnect(ctx)
	}
	if err != nil {
		return nil, err
	}
	for i, incoming := range incomings {
		incomings[i] = wiredIncoming{incoming}
	}
	return incomings, nil
}

// reconnect returns what the reader is told: ErrClosed, or that it may go on.
func (s *wiredSubscription) reconnect(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return delivery.ErrClosed
	}
	inner, err := s.transport.Transport.Subscribe(ctx, s.config)
	if err != nil {
		return err
	}
	s.inner = inner
	return errors.New("the connection was lost and made again")
}

func (s *wiredSubscription) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.inner.Close()
}

func (s *wiredSubscription) Pause(ctx context.Context) error {
	return s.current().(delivery.Pauser).Pause(ctx)
}

func (s *wiredSubscription) Resume(ctx context.Context) error {
	return s.current().(delivery.Pauser).Resume(ctx)
}

type wiredIncoming struct{ delivery.Incoming }

func (in wiredIncoming) Envelope() (*delivery.Envelope, error) {
	envelope, err := in.Incoming.Envelope()
	if err == nil && envelope.Type == rawType {
		return nil, &delivery.MalformedError{Problem: "is raw", Raw: []byte(strings.Clone(string(envelope.Body)))}
	}
	return envelope, err
}
