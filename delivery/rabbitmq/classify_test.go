package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/retry"
)

func TestClassifyErrorGoesByTheReplyCode(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		want  retry.Class
		known bool
	}{
		"connection forced":   {&amqp.Error{Code: 320}, retry.ClassRecoverable, true},
		"internal error":      {&amqp.Error{Code: 541}, retry.ClassRecoverable, true},
		"access refused":      {&amqp.Error{Code: 403}, retry.ClassPermanent, true},
		"not found":           {&amqp.Error{Code: 404, Recover: true}, retry.ClassPermanent, true},
		"precondition failed": {&amqp.Error{Code: 406}, retry.ClassPermanent, true},
		"closed":              {amqp.ErrClosed, retry.ClassRecoverable, true},
		"frame error":         {&amqp.Error{Code: 501}, retry.ClassRecoverable, true},
		"nil reply":           {(*amqp.Error)(nil), retry.ClassRecoverable, false},
		"not AMQP's":          {errors.New("plain"), retry.ClassRecoverable, false},
	} {
		t.Run(name, func(t *testing.T) {
			var transport *rabbitmq.Transport
			for _, classify := range []retry.Rule{rabbitmq.ClassifyError, transport.ClassifyError} {
				for how, err := range map[string]error{
					"bare":    test.err,
					"wrapped": fmt.Errorf("deliver: %w", test.err),
					"joined":  errors.Join(errors.New("plain"), test.err),
				} {
					class, known := classify(err)
					assert.Equal(t, test.known, known, how)
					assert.Equal(t, test.want, class, how)
				}
			}
		})
	}
}

// Behind retry.Builtin the rule decides what the table leaves open, and no more.
func TestClassifyErrorBehindTheTable(t *testing.T) {
	classifier := retry.Classifier{Rules: []retry.Rule{retry.Builtin, rabbitmq.ClassifyError}}
	missing, forced := &amqp.Error{Code: 404}, &amqp.Error{Code: 320}
	for name, test := range map[string]struct {
		err  error
		want retry.Class
	}{
		"reply":                   {missing, retry.ClassPermanent},
		"marked After":            {retry.After(time.Second, missing), retry.ClassRecoverable},
		"marked Permanent":        {retry.Permanent(forced), retry.ClassPermanent},
		"reply and deadline":      {&rabbitmq.ConnectError{Cause: missing, Context: context.DeadlineExceeded}, retry.ClassTransient},
		"reply and cancellation":  {&rabbitmq.ConnectError{Cause: missing, Context: context.Canceled}, retry.ClassPermanent},
		"neither table nor reply": {errors.New("plain"), retry.ClassRecoverable},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, classifier.Classify(fmt.Errorf("deliver: %w", test.err)))
		})
	}
}

// A handler that talks to RabbitMQ, behind a transport that does not.
func ExampleClassifyError() {
	send := func(context.Context, delivery.Message) error {
		return fmt.Errorf("announce: %w", &amqp.Error{Code: amqp.NotFound, Reason: "no exchange 'news'"})
	}
	classifier := retry.Classifier{Rules: []retry.Rule{retry.Builtin, rabbitmq.ClassifyError}}
	_, err := delivery.NewConsumer(memory.New(memory.Config{}), send, delivery.ConsumerConfig{Classifier: classifier})
	fmt.Println(err, classifier.Classify(send(context.Background(), delivery.Message{})))
	// Output: <nil> permanent
}
