package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/retry"
)

// With a message store a message can be asked about, and waits for its end user's
// acknowledgment.
func Example_messageStore() {
	ctx := context.Background()
	store, transport := memory.NewStore(memory.StoreConfig{}), memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	acknowledger, err := delivery.NewAcknowledger(store, delivery.AcknowledgerConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	consuming, enough := context.WithCancel(ctx)
	handler := func(_ context.Context, message delivery.Message) error {
		fmt.Printf("to %s: %s\n", message.Recipient, message.Body)
		enough()
		return nil
	}
	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
		Store:      store,
		AckTimeout: time.Minute,
		Retry:      retry.Exponential{MaxRetries: 5},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	status := func() delivery.Status {
		records, _ := store.Get(ctx, "m-1")
		return records[0].Status
	}

	err = publisher.Publish(ctx, delivery.Message{ID: "m-1", Recipient: "+966500000001", Body: []byte("hello"), RequireAck: true})
	fmt.Println("published:", err, status())
	fmt.Println("closed:", publisher.Close(ctx)) // what is published is sent
	fmt.Println("ran:", consumer.Run(consuming), status())
	fmt.Println("acknowledged:", acknowledger.Delivered(ctx, "m-1"), status())
	// Output:
	// published: <nil> pending
	// closed: <nil>
	// to +966500000001: hello
	// ran: <nil> sent
	// acknowledged: <nil> delivered
}

// A scheduled message waits in the store, and can be withdrawn until it is sent.
func ExamplePublisher_Cancel() {
	ctx := context.Background()
	store, transport := memory.NewStore(memory.StoreConfig{}), memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	err = publisher.Publish(ctx, delivery.Message{ID: "m-1", Recipient: "+966500000001", NotBefore: tomorrow})
	fmt.Println("published:", err)
	fmt.Println("cancelled:", publisher.Cancel(ctx, "m-1"))
	err = publisher.Cancel(ctx, "m-2")
	fmt.Println("unknown:", errors.Is(err, delivery.ErrNotFound))
	fmt.Println("closed:", publisher.Close(ctx))
	// Output:
	// published: <nil>
	// cancelled: <nil>
	// unknown: true
	// closed: <nil>
}

// PublishIn saves messages with whatever else the host's transaction writes.
// Package sqlstore makes a Saver of a *sql.Tx; here the store itself is one.
func ExamplePublisher_PublishIn() {
	ctx := context.Background()
	store, transport := memory.NewStore(memory.StoreConfig{}), memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: store})
	if err != nil {
		fmt.Println(err)
		return
	}
	committed, err := publisher.PublishIn(ctx, store, delivery.Message{ID: "m-1", Recipient: "+966500000001"})
	if err != nil {
		fmt.Println(err) // roll back
		return
	}
	// Commit. If the process dies from here on, a RetryWorker sends the message.
	committed()
	fmt.Println("closed:", publisher.Close(ctx))
	records, _ := store.Get(ctx, "m-1")
	fmt.Println(records[0].Status)
	// Output:
	// closed: <nil>
	// queued
}

// A batch is sent as a whole or, when a message of it is invalid, not at all.
func ExamplePublisher_SendBatch() {
	ctx := context.Background()
	transport := memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	batch := []delivery.Message{{ID: "m-1", Recipient: "+966500000001"}, {ID: "m-2"}}
	_, err = publisher.SendBatch(ctx, batch)
	var fault *delivery.BatchError
	if errors.As(err, &fault) {
		for _, invalid := range fault.Invalid {
			fmt.Println(invalid.ID, invalid.Err)
		}
	}
	batch[1].Recipient = "+966500000002"
	result, err := publisher.SendBatch(ctx, batch)
	fmt.Println(result.Succeeded, "of", result.Total, err)
	// Output:
	// m-2 delivery: message Recipient is empty
	// 2 of 2 <nil>
}

// A host that runs no RetryWorker keeps records all the same: the transport keeps
// what waits.
func ExampleRecordsOnly() {
	ctx := context.Background()
	store, transport := memory.NewStore(memory.StoreConfig{}), memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	records := delivery.RecordsOnly(store) // for the publishers and the consumers
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: records})
	if err != nil {
		fmt.Println(err)
		return
	}
	later := delivery.Message{ID: "m-1", Recipient: "+966500000001", NotBefore: time.Now().Add(time.Hour)}
	fmt.Println("published:", publisher.Publish(ctx, later))
	stored, _ := store.Get(ctx, "m-1")
	fmt.Println(stored[0].ID, stored[0].Status)
	// Output:
	// published: <nil>
	// m-1 queued
}
