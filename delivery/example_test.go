package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry"
)

// What the package comment begins with.
func Example_packageComment() {
	ctx, cancel := context.WithCancel(context.Background())
	handler := func(_ context.Context, message delivery.Message) error {
		fmt.Printf("to %s: %s\n", message.Recipient, message.Body)
		cancel() // enough for an example
		return nil
	}

	transport := memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
		Retry:       retry.Exponential{Base: 5 * time.Second, MaxRetries: 5},
		Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{}),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: []byte("hello")})
	fmt.Println("published:", err)
	err = consumer.Run(ctx)
	fmt.Println("ran:", err)
	// Output:
	// published: <nil>
	// to +966500000001: hello
	// ran: <nil>
}

// A publisher, a consumer, and a handler that succeeds the second time.
func Example() {
	transport := memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	handler := func(ctx context.Context, message delivery.Message) error {
		attempt, _ := delivery.AttemptFrom(ctx)
		fmt.Printf("attempt %d for %s: %s\n", attempt.Number, message.Recipient, message.Body)
		if attempt.Number == 1 {
			return errors.New("provider is busy")
		}
		cancel() // enough for an example
		return nil
	}
	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
		Retry:       retry.Exponential{Base: time.Millisecond, MaxRetries: 5},
		Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{}),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: []byte("hello"), Priority: delivery.High})
	fmt.Println("published:", err)
	fmt.Println("ran:", consumer.Run(ctx)) // returns after a drain when ctx ends
	// Output:
	// published: <nil>
	// attempt 1 for +966500000001: hello
	// attempt 2 for +966500000001: hello
	// ran: <nil>
}

// A typed handler gets the body decoded.
func ExampleJSON() {
	type Order struct {
		Number int `json:"number"`
	}
	handler := delivery.JSON(func(_ context.Context, order Order) error {
		fmt.Println("order", order.Number)
		return nil
	})
	fmt.Println(handler(context.Background(), delivery.Message{Body: []byte(`{"number": 7}`)}))
	err := handler(context.Background(), delivery.Message{Body: []byte(`no JSON`)})
	fmt.Println(retry.Classifier{}.Classify(err))
	// Output:
	// order 7
	// <nil>
	// permanent
}

// One consumer for several types of messages, each with a handler of its own.
func ExampleMux() {
	type Code struct{ Digits string }
	type Mail struct{ Template string }
	sendCode := func(_ context.Context, code Code) error {
		fmt.Println("code", code.Digits)
		return nil
	}
	sendMail := func(_ context.Context, mail Mail) error {
		fmt.Println("mail", mail.Template)
		return nil
	}
	handler, err := delivery.Mux(
		delivery.Route{Type: "sms.code", Handler: delivery.JSON(sendCode)},
		delivery.Route{Type: "mail.*", Handler: delivery.JSON(sendMail)},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	// NewConsumer takes the handler. Here it is called directly.
	ctx := context.Background()
	code, err := delivery.NewJSONMessage(delivery.Message{Recipient: "+966500000001", Type: "sms.code"}, Code{Digits: "1234"})
	fmt.Println(handler(ctx, code), err)
	mail, err := delivery.NewJSONMessage(delivery.Message{Recipient: "a@example.com", Type: "mail.welcome"}, Mail{Template: "hello"})
	fmt.Println(handler(ctx, mail), err)
	fmt.Println(handler(ctx, delivery.Message{Recipient: "a@example.com", Type: "fax"}))
	// Output:
	// code 1234
	// <nil> <nil>
	// mail hello
	// <nil> <nil>
	// delivery: no handler for type "fax", there are handlers for "mail.*", "sms.code"
}

// What Publish takes is made of a value, which the consumer's typed handler gets back.
func ExampleNewJSONMessage() {
	type Order struct {
		Number int `json:"number"`
	}
	transport := memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	message, err := delivery.NewJSONMessage(delivery.Message{Recipient: "customer-5", Type: "order.created"}, Order{Number: 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s %s %s\n", message.Type, message.ContentType, message.Body)
	fmt.Println("published:", publisher.Publish(context.Background(), message))
	// Output:
	// order.created application/json {"number":7}
	// published: <nil>
}

// Publish says what became of each message.
func ExampleResultsError() {
	transport := memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{MaxBodyBytes: 10})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = publisher.Publish(context.Background(),
		delivery.Message{ID: "1", Recipient: "a", Body: []byte("short")},
		delivery.Message{ID: "2", Recipient: "a", Body: []byte("much too long")},
	)
	var failed *delivery.ResultsError
	if errors.As(err, &failed) {
		for _, result := range failed.Results {
			fmt.Println(result.ID, result.Err)
		}
	}
	fmt.Println(errors.Is(err, delivery.ErrTooLarge))
	// Output:
	// 1 delivery: not sent, because another message of the call is invalid
	// 2 delivery: message Body has 13 bytes, at most 10 are allowed
	// true
}

// Middleware acts around every run of the handler.
func ExampleMiddleware() {
	timing := func(next delivery.Handler) delivery.Handler {
		return func(ctx context.Context, message delivery.Message) error {
			begin := time.Now()
			err := next(ctx, message)
			fmt.Println(message.ID, "took less than a minute:", time.Since(begin) < time.Minute)
			return err
		}
	}
	handler := timing(func(context.Context, delivery.Message) error { return nil })
	_ = handler(context.Background(), delivery.Message{ID: "m-1"})
	// Output: m-1 took less than a minute: true
}
