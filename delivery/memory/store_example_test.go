package memory_test

import (
	"context"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

func ExampleStore() {
	ctx, store := context.Background(), memory.NewStore(memory.StoreConfig{})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	store.Save(ctx, delivery.Record{
		Message:  delivery.Message{ID: "1", Recipient: "a", CreatedAt: now},
		Progress: delivery.Progress{Queue: "orders", Status: delivery.StatusPending, DueAt: now, UpdatedAt: now},
	})

	claimed, _ := store.Claim(ctx, delivery.Claim{Queue: "orders", Status: delivery.StatusPending, Token: "worker", Now: now, Lease: time.Minute, Limit: 10})
	fmt.Println("claimed:", len(claimed), "until", claimed[0].DueAt.Format(time.TimeOnly))

	progress, _ := store.Update(ctx, delivery.Update{ID: "1", Status: delivery.StatusQueued, At: now, OnlyIfClaimedBy: "worker"})
	fmt.Println("now:", progress[0].Status)

	_, errs := store.Update(ctx, delivery.Update{ID: "1", Status: delivery.StatusPending, At: now})
	fmt.Println(errs[0])
	// Output:
	// claimed: 1 until 12:01:00
	// now: queued
	// delivery: late update: message 1 is queued already (generation 0, 0 failed attempts)
}
