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

// networked makes the memory transport behave like one with a network: it may
// receive malformed messages, and its connections may break and be made again.
type networked struct {
	*memory.Transport

	mu            sync.Mutex
	subscriptions []*networkedSubscription
}

// rawType marks a message that was sent without an envelope.
const rawType = "raw"

func networkedHarness(testing.TB) deliverytest.Harness {
	first := memory.New(memory.Config{})
	return deliverytest.Harness{
		Open: func(testing.TB) delivery.Transport { return &networked{Transport: first.Another()} },
		Kill: func(tb testing.TB, transport delivery.Transport) {
			if err := transport.Close(); err != nil {
				tb.Error(err)
			}
		},
		Cut: func(tb testing.TB, transport delivery.Transport) {
			if err := transport.(*networked).cut(); err != nil {
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

func (n *networked) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	inner, err := n.Transport.Subscribe(ctx, config)
	if err != nil {
		return nil, err
	}
	s := &networkedSubscription{transport: n, config: config, inner: inner}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subscriptions = append(n.subscriptions, s)
	return s, nil
}

func (n *networked) cut() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, s := range n.subscriptions {
		errs = append(errs, s.current().Close())
	}
	return errors.Join(errs...)
}

type networkedSubscription struct {
	transport *networked
	config    delivery.SubscribeConfig

	mu     sync.Mutex
	inner  delivery.Subscription
	closed bool
}

func (s *networkedSubscription) current() delivery.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inner
}

func (s *networkedSubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	incomings, err := s.current().Receive(ctx)
	if errors.Is(err, delivery.ErrClosed) {
		return nil, s.reconnect(ctx)
	}
	if err != nil {
		return nil, err
	}
	for i, incoming := range incomings {
		incomings[i] = networkedIncoming{incoming}
	}
	return incomings, nil
}

// reconnect returns what Receive returns: ErrClosed, or an error after which
// Receive works again.
func (s *networkedSubscription) reconnect(ctx context.Context) error {
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

func (s *networkedSubscription) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.inner.Close()
}

func (s *networkedSubscription) Pause(ctx context.Context) error {
	return s.current().(delivery.Pauser).Pause(ctx)
}

func (s *networkedSubscription) Resume(ctx context.Context) error {
	return s.current().(delivery.Pauser).Resume(ctx)
}

type networkedIncoming struct{ delivery.Incoming }

func (in networkedIncoming) Stale() bool { return in.Incoming.(delivery.StaleTeller).Stale() }

func (in networkedIncoming) Envelope() (*delivery.Envelope, error) {
	envelope, err := in.Incoming.Envelope()
	if err == nil && envelope.Type == rawType {
		return nil, &delivery.MalformedError{Problem: "is raw", Raw: []byte(strings.Clone(string(envelope.Body)))}
	}
	return envelope, err
}
