package dlq_test

import (
	"context"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// A provider was down for a while. Everything that failed for it is sent again,
// no faster than it can bear.
func ExampleManager_StartReplay() {
	ctx, stop := context.WithCancel(context.Background())
	manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), printer{}, dlq.Config{})
	ended := make(chan error, 1)
	go func() { ended <- manager.RunJobs(ctx) }() // beside the consumer

	for i, text := range []string{"status 503", "no such address", "status 503"} {
		// A consumer does this.
		err := manager.DeadLetter(ctx, delivery.DeadLetter{
			ID:       fmt.Sprint("letter-", i),
			Envelope: delivery.Envelope{Message: delivery.Message{ID: fmt.Sprint("message-", i), Recipient: "+966500000001"}},
			Reason:   delivery.ReasonExhausted,
			Error:    text,
			At:       time.Date(2026, 3, 4, 12, i, 0, 0, time.UTC),
		})
		if err != nil {
			fmt.Println(err)
		}
	}

	filter := dlq.Filter{Fingerprint: dlq.Fingerprint("status 503")}
	preview, err := manager.Preview(ctx, filter)
	fmt.Println(preview.Count, "since", preview.Oldest.Format(time.TimeOnly), err)

	job, err := manager.StartReplay(ctx, filter, dlq.ReplayConfig{Rate: 50})
	for err == nil && !job.Finished() {
		<-time.After(10 * time.Millisecond)
		job, err = manager.Job(ctx, job.ID)
	}
	fmt.Println(job.Status, job.Requeued, "of", job.Total, err)
	stop()
	fmt.Println(<-ended)
	// Output:
	// 2 since 12:00:00 <nil>
	// sent message-0 as generation 1
	// sent message-2 as generation 1
	// done 2 of 2 <nil>
	// <nil>
}
