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

// A message was saved by a process that died before it could send it. A worker
// finds it and sends it.
func ExampleRetryWorker() {
	ctx := context.Background()
	store, transport := memory.NewStore(memory.StoreConfig{}), memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	left := delivery.Record{Message: delivery.Message{ID: "m-1", Recipient: "+966500000001"}}
	left.Queue, left.Status, left.ClaimedBy, left.DueAt = "memory", delivery.StatusPending, "somebody who died", time.Now()
	store.Save(ctx, left)

	worker, err := delivery.NewRetryWorker(store, transport, delivery.RetryWorkerConfig{
		Retry: retry.Exponential{MaxRetries: 5},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// A service calls Run, which returns when its context ends.
	fmt.Println("worked:", worker.RunOnce(ctx))
	records, _ := store.Get(ctx, "m-1")
	fmt.Println(records[0].ID, records[0].Status)
	// Output:
	// worked: <nil>
	// m-1 queued
}

// A message was put off for hours, because a phone was off. It is on again.
func ExampleRetryWorker_Wake() {
	ctx := context.Background()
	store, transport := memory.NewStore(memory.StoreConfig{}), memory.New(memory.Config{})
	defer func() { _ = transport.Close() }()
	waits := delivery.Record{Message: delivery.Message{ID: "m-1", Recipient: "+966500000001"}}
	waits.Queue, waits.Status, waits.DueAt = "memory", delivery.StatusRetrying, time.Now().Add(8*time.Hour)
	store.Save(ctx, waits)

	worker, err := delivery.NewRetryWorker(store, transport, delivery.RetryWorkerConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	woken, err := worker.Wake(ctx, delivery.WakeFilter{Recipient: "+966500000001"})
	fmt.Println("woken:", woken, err)
	fmt.Println("worked:", worker.RunOnce(ctx)) // a service has called Run
	records, _ := store.Get(ctx, "m-1")
	fmt.Println(records[0].ID, records[0].Status)
	// Output:
	// woken: 1 <nil>
	// worked: <nil>
	// m-1 queued
}

// The end user's acknowledgment makes a message delivered.
func ExampleAcknowledger() {
	ctx := context.Background()
	store := memory.NewStore(memory.StoreConfig{})
	sent := delivery.Record{Message: delivery.Message{ID: "m-1", Recipient: "+966500000001", RequireAck: true}}
	sent.Queue, sent.Status, sent.SentAt, sent.DueAt = "memory", delivery.StatusSent, time.Now(), time.Now().Add(5*time.Minute)
	store.Save(ctx, sent)

	acknowledger, err := delivery.NewAcknowledger(store, delivery.AcknowledgerConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = acknowledger.Delivered(ctx, "m-1", "m-2")
	var failed *delivery.ResultsError
	if errors.As(err, &failed) {
		for _, result := range failed.Results {
			fmt.Println(result.ID, result.Err)
		}
	}
	fmt.Println(acknowledger.Read(ctx, "m-1"))
	records, _ := store.Get(ctx, "m-1")
	fmt.Println(records[0].Status)
	// Output:
	// m-1 <nil>
	// m-2 delivery: no such message
	// <nil>
	// read
}
