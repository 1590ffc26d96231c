package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/esh3artech/barid/retry"
)

// Handler delivers one message. It returns nil when its effect is done, and an
// error otherwise, which retry.Classifier turns into what happens next; wrap it
// with retry.Permanent, retry.After or retry.Later to say so yourself.
//
// The context ends at ConsumerConfig.HandlerTimeout, when a shutdown's drain is
// over, and when the lease on the message is lost (context.Cause tells which).
// A handler should stop then: its worker stays occupied until it returns. It
// may run more than once for a message, so pass Message.ID on to whatever it
// calls as the idempotency key there.
//
// Handlers run in parallel. A panic, or runtime.Goexit, is a failed attempt.
type Handler func(ctx context.Context, message Message) error

// Middleware wraps a Handler, to act before and after it.
type Middleware func(Handler) Handler

// JSON makes a Handler of a function that takes Message.Body decoded from JSON.
// A body that can't be decoded is a permanent failure, by a *BodyError. AttemptFrom
// gives the function the rest of the message.
func JSON[T any](handle func(ctx context.Context, value T) error) Handler {
	return Typed(json.Unmarshal, handle)
}

// Typed is JSON for any other encoding: unmarshal fills the value, given as a
// pointer, from a body.
func Typed[T any](unmarshal func(body []byte, value any) error, handle func(ctx context.Context, value T) error) Handler {
	if unmarshal == nil || handle == nil {
		return nil
	}
	return func(ctx context.Context, message Message) error {
		var value T
		if err := unmarshal(message.Body, &value); err != nil {
			return retry.Permanent(&BodyError{Type: fmt.Sprintf("%T", value), Err: err})
		}
		return handle(ctx, value)
	}
}

// BodyError says that a body could not be decoded. Its text has nothing of the
// body, which the texts of decoders often quote, and is fit for logs.
type BodyError struct {
	// Type is the Go type that was wanted.
	Type string
	// Err is the decoder's error. Its text may quote the body.
	Err error
}

func (e *BodyError) Error() string {
	text := "delivery: body can't be decoded as " + e.Type
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(e.Err, &syntax):
		text += fmt.Sprintf(": invalid JSON at byte %d", syntax.Offset)
	case errors.As(e.Err, &mismatch) && mismatch.Type != nil:
		text += fmt.Sprintf(": the value at byte %d is no %s", mismatch.Offset, mismatch.Type)
	}
	return text
}

// Unwrap returns the decoder's error.
func (e *BodyError) Unwrap() error { return e.Err }

// Attempt is what a running handler can learn about its run.
type Attempt struct {
	// Message is the one being handled.
	Message Message
	// Number is 1 on the first attempt, and one more after each that failed.
	Number int
	// Generation is 0, plus 1 for each replay from the dead letters.
	Generation int
}

// AttemptFrom returns the attempt whose handler was given ctx, or one derived
// from it.
func AttemptFrom(ctx context.Context) (Attempt, bool) {
	envelope, ok := ctx.Value(attemptKey{}).(*Envelope)
	if !ok {
		return Attempt{}, false
	}
	return Attempt{Message: envelope.Message, Number: envelope.Attempt + 1, Generation: envelope.Generation}, true
}

type attemptKey struct{}

// PanicError is the error of an attempt whose handler panicked, or of another
// function of the host's that did.
type PanicError struct {
	// Value is what was given to panic.
	Value any
	// Stack is the goroutine's stack, for the log.
	Stack []byte
}

// newPanicError is called by the deferred function that has recovered value.
func newPanicError(value any) *PanicError { return &PanicError{Value: value, Stack: debug.Stack()} }

func (e *PanicError) Error() string { return fmt.Sprintf("delivery: panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ErrGoexit is the error of an attempt whose handler called runtime.Goexit.
var ErrGoexit = errors.New("delivery: handler called runtime.Goexit")

// ErrShutdown is the cause of a handler's cancelled context when the drain of
// Consumer.Run took longer than DrainTimeout.
var ErrShutdown = errors.New("delivery: consumer is shutting down")
