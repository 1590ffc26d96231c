package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

func ExampleGuard_Do() {
	store := idempotency.NewMemory(idempotency.MemoryConfig{})
	guard := idempotency.NewGuard(store, idempotency.GuardConfig{})
	key := idempotency.FromID("invoices", "2026-0042", 0)

	for range 2 {
		err := guard.Do(context.Background(), key, func(context.Context) error {
			fmt.Println("sending")
			return nil
		})
		if errors.Is(err, idempotency.ErrDuplicate) {
			fmt.Println("sent before")
		}
	}
	// Output:
	// sending
	// sent before
}

func ExampleGuard_Claim() {
	ctx := context.Background()
	guard := idempotency.NewGuard(idempotency.NewMemory(idempotency.MemoryConfig{}), idempotency.GuardConfig{})
	key := idempotency.FromID("invoices", "2026-0042", 0)

	workCtx, claim, err := guard.Claim(ctx, key, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	failed := work(workCtx)
	if failed != nil {
		// Schedule the retry durably first, then:
		err = claim.Schedule(ctx, 1, time.Minute)
	} else {
		err = claim.Complete(ctx)
	}
	fmt.Println(failed, err)

	// An old copy of the first attempt is of no use any more.
	_, _, err = guard.Claim(ctx, key, 0)
	fmt.Println(err)
	// Output:
	// provider is down <nil>
	// idempotency: duplicate: a later attempt is scheduled
}

func work(context.Context) error { return errors.New("provider is down") }

func ExampleFromContent() {
	body := []byte(`{"amount": 10}`)
	id := idempotency.FromContent([]byte("+966500000001"), body)
	fmt.Println(id[:16])
	fmt.Println(id == idempotency.FromContent([]byte("+966500000001"), body))
	// Output:
	// 280ba21885532428
	// true
}
