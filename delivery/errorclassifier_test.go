package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/retry"
)

var errOfClient = errors.New("the server knows no such thing")

// classifyingTransport says that its client's error is permanent.
type classifyingTransport struct{ *memory.Transport }

func (classifyingTransport) ClassifyError(err error) (retry.Class, bool) {
	return retry.ClassPermanent, errors.Is(err, errOfClient)
}

// reasons gets the reason of each dead letter.
type reasons chan delivery.Reason

func (r reasons) DeadLetter(_ context.Context, letters ...delivery.DeadLetter) error {
	for _, letter := range letters {
		r <- letter.Reason
	}
	return nil
}

func TestConsumerAsksTheTransportLast(t *testing.T) {
	transient := func(err error) (retry.Class, bool) { return retry.ClassTransient, errors.Is(err, errOfClient) }
	for name, test := range map[string]struct {
		rules []retry.Rule
		err   error
		want  delivery.Reason
	}{
		"the transport's error":      {err: fmt.Errorf("send: %w", errOfClient), want: delivery.ReasonPermanent},
		"a rule knows nothing of it": {rules: []retry.Rule{nil, func(error) (retry.Class, bool) { return 0, false }}, err: errOfClient, want: delivery.ReasonPermanent},
		"a rule overrules":           {rules: []retry.Rule{transient}, err: errOfClient, want: delivery.ReasonExhausted},
		"a mark overrules":           {err: retry.After(time.Second, errOfClient), want: delivery.ReasonExhausted},
		"the table overrules":        {err: errors.Join(errOfClient, context.DeadlineExceeded), want: delivery.ReasonExhausted},
		"another error":              {err: errors.New("another"), want: delivery.ReasonExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				transport := classifyingTransport{memory.New(memory.Config{})}
				given := make(reasons, 1)
				handler := func(context.Context, delivery.Message) error { return test.err }
				consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
					Classifier: retry.Classifier{Rules: test.rules}, DeadLetters: given,
				})
				require.NoError(t, err)
				publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
				require.NoError(t, err)
				require.NoError(t, publisher.Publish(t.Context(), delivery.Message{Recipient: "r"}))

				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- consumer.Run(ctx) }()
				assert.Equal(t, test.want, <-given)
				cancel()
				require.NoError(t, <-ended)
				require.NoError(t, transport.Close())
			})
		})
	}
}

func TestConsumerLeavesTheRulesOfItsConfigAlone(t *testing.T) {
	transport := classifyingTransport{memory.New(memory.Config{})}
	rules := make([]retry.Rule, 1, 8) // room that an append would write into
	_, err := delivery.NewConsumer(transport, func(context.Context, delivery.Message) error { return nil },
		delivery.ConsumerConfig{Classifier: retry.Classifier{Rules: rules}})
	require.NoError(t, err)
	for i, rule := range rules[:cap(rules)] {
		assert.Nil(t, rule, i)
	}
}
