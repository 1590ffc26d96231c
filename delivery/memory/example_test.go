package memory_test

import (
	"context"
	"fmt"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

// A publisher sends through the transport, and a consumer handles what comes.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	transport := memory.New(memory.Config{})
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	if err != nil {
		fmt.Println(err)
	}
	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: []byte("your code is 1234")})
	fmt.Println("published:", err)

	consumer, err := delivery.NewConsumer(transport, func(_ context.Context, message delivery.Message) error {
		fmt.Printf("to %s: %s\n", message.Recipient, message.Body)
		cancel() // the consumer finishes what it has, and ends
		return nil
	}, delivery.ConsumerConfig{})
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println("consumed:", consumer.Run(ctx))
	fmt.Println("closed:", transport.Close())
	// Output:
	// published: <nil>
	// to +966500000001: your code is 1234
	// consumed: <nil>
	// closed: <nil>
}

// Receive returns the higher priorities first.
func ExampleTransport() {
	ctx := context.Background()
	transport := memory.New(memory.Config{Name: "orders"})

	errs := transport.Send(ctx, []delivery.Envelope{
		{Message: delivery.Message{ID: "1", Recipient: "a", Body: []byte("report")}},
		{Message: delivery.Message{ID: "2", Recipient: "b", Body: []byte("alarm"), Priority: delivery.Urgent}},
	})
	fmt.Println("errors:", errs)

	subscription, _ := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	incomings, _ := subscription.Receive(ctx)
	for _, incoming := range incomings {
		envelope, _ := incoming.Envelope()
		fmt.Println(incoming.Priority(), string(envelope.Body), incoming.Ack())
	}
	fmt.Println("closed:", transport.Close())
	// Output:
	// errors: []
	// urgent alarm <nil>
	// normal report <nil>
	// closed: <nil>
}

// A transport from Another stands for the process that is started again.
func ExampleTransport_Another() {
	ctx := context.Background()
	first := memory.New(memory.Config{})
	first.Send(ctx, []delivery.Envelope{{Message: delivery.Message{ID: "1", Recipient: "a"}}})
	fmt.Println("closed:", first.Close())

	second := first.Another()
	subscription, _ := second.Subscribe(ctx, delivery.SubscribeConfig{})
	incomings, _ := subscription.Receive(ctx)
	envelope, _ := incomings[0].Envelope()
	fmt.Println("came:", envelope.ID, incomings[0].Ack())
	fmt.Println("closed:", second.Close())
	// Output:
	// closed: <nil>
	// came: 1 <nil>
	// closed: <nil>
}
