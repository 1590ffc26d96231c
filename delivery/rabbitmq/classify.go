package rabbitmq

import (
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

var _ delivery.ErrorClassifier = (*Transport)(nil)

// ClassifyError is a retry.Rule for the errors of the AMQP client, found through
// any wrapping. Replies 403 (access refused), 404 (not found) and 406
// (precondition failed) are permanent: somebody has to change something first.
// Every other *amqp091.Error is recoverable. The rule knows no other error.
//
// A consumer on a Transport has this rule by itself. Any other consumer whose
// handler talks to RabbitMQ names it in its Classifier, behind retry.Builtin so
// that marks by retry.Permanent and retry.After still decide; see the example.
func ClassifyError(err error) (retry.Class, bool) {
	var reply *amqp.Error
	if !errors.As(err, &reply) || reply == nil {
		return retry.ClassRecoverable, false
	}
	// The code decides, not Error.Recover, which is false for a connection that an
	// operator has closed (320) and true for a queue that does not exist (404).
	switch reply.Code {
	case amqp.AccessRefused, amqp.NotFound, amqp.PreconditionFailed:
		return retry.ClassPermanent, true
	}
	return retry.ClassRecoverable, true
}

// ClassifyError implements delivery.ErrorClassifier.
func (*Transport) ClassifyError(err error) (retry.Class, bool) { return ClassifyError(err) }
