package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// printer stands in for a delivery.Publisher.
type printer struct{}

func (printer) Forward(_ context.Context, envelopes ...delivery.Envelope) error {
	for _, envelope := range envelopes {
		fmt.Println("sent", envelope.ID, "as generation", envelope.Generation)
	}
	return nil
}

func ExampleManager_Requeue() {
	ctx := context.Background()
	manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), printer{}, dlq.Config{})
	// A consumer does this.
	err := manager.DeadLetter(ctx, delivery.DeadLetter{
		ID:       "letter-1",
		Envelope: delivery.Envelope{Message: delivery.Message{ID: "message-1", Recipient: "+966500000001"}},
		Reason:   delivery.ReasonExhausted,
		Error:    "provider timed out after 3000 ms",
		At:       time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	results, err := manager.Requeue(ctx, "letter-1", "letter-2")
	for _, result := range results {
		fmt.Println(result.ID, result.Err)
	}
	fmt.Println(errors.Is(err, dlq.ErrNotFound))
	// Output:
	// sent message-1 as generation 1
	// letter-1 <nil>
	// letter-2 dlq: no such entry
	// true
}

func ExampleFingerprint() {
	fmt.Println(dlq.Fingerprint(`dial tcp 10.0.0.1:5672: timeout after 30s`) == dlq.Fingerprint(`dial tcp 10.0.0.7:5672: timeout after 5s`))
	fmt.Println(dlq.Fingerprint(`status 404`) == dlq.Fingerprint(`status 503`))
	// Output:
	// true
	// false
}
