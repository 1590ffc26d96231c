package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// The transport has confirmed messages, and lost them. What tells of that is that
// they are queued for so long, and an operator has them sent again.
func TestResend(t *testing.T) {
	for name, configure := range map[string]func(*faultyRecords) delivery.Store{
		"outbox":       func(records *faultyRecords) delivery.Store { return records },
		"records only": func(records *faultyRecords) delivery.Store { return delivery.RecordsOnly(records) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				ctx := f.t.Context()
				publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: configure(f.records)})
				require.NoError(t, err)
				require.NoError(t, publisher.Publish(ctx, to("lost"), to("done")))
				wait(5 * time.Second)
				f.update(delivery.Update{ID: "done", Status: delivery.StatusDelivered, At: time.Now()})
				other := stored("other", delivery.StatusQueued, time.Time{})
				other.Queue = "mail"
				f.save(other)
				wait(time.Hour)
				stats, err := f.records.Stats(ctx, "memory")
				require.NoError(t, err)
				require.Equal(t, f.get("lost").UpdatedAt, stats.OldestQueued)
				require.GreaterOrEqual(t, time.Since(stats.OldestQueued), time.Hour)
				require.Equal(t, map[string]int{"lost": 1, "done": 1}, f.outlet.sent())

				err = publisher.Resend(ctx, "lost", "nobody", "done", "other", "lost")
				var failed *delivery.ResultsError
				require.ErrorAs(t, err, &failed)
				for i, want := range []error{nil, delivery.ErrNotFound, delivery.ErrLate, delivery.ErrNotFound, nil} {
					require.ErrorIs(t, failed.Results[i].Err, want)
				}
				wait(5 * time.Second)
				require.Equal(t, map[string]int{"lost": 2, "done": 1}, f.outlet.sent())
				record := f.get("lost")
				require.Equal(t, delivery.StatusQueued, record.Status)
				require.Equal(t, 1, record.Generation)
				require.Equal(t, 1, f.outlet.taken[2].Generation)
				require.NoError(t, publisher.Resend(ctx))
				require.NoError(t, publisher.Close(ctx))
				require.ErrorIs(t, publisher.Resend(ctx, "lost"), delivery.ErrClosed)
			})
		})
	}
}

func TestResendLeavesAloneWhatIsSeenTo(t *testing.T) {
	bubble(t, func(f *fixture) {
		ctx := f.t.Context()
		require.ErrorIs(t, f.publisher.Resend(ctx, "waits"), delivery.ErrUnsupported)
		f.outboxed(delivery.PublisherConfig{})
		f.publish(to("waits"))
		wait(5 * time.Second)
		require.Equal(t, delivery.StatusQueued, f.get("waits").Status)
		require.ErrorIs(t, f.publisher.Resend(ctx, "waits"), delivery.ErrLate, "it waits in this process")
		f.records.getDown.Store(true)
		require.ErrorIs(t, f.publisher.Resend(ctx, "waits"), delivery.ErrStoreDown)
		require.NoError(t, f.publisher.Close(ctx))
		require.EqualValues(t, 1, f.waiting())
	})
}
