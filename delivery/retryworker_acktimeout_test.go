package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestOverdueAcknowledgments(t *testing.T) {
	bubble(t, func(f *fixture) {
		record := stored("m", delivery.StatusSent, time.Now().Add(time.Minute))
		record.Body, record.History = []byte("hello"), []delivery.Failure{{At: time.Now().UTC(), Error: "busy"}}
		f.save(record)
		defer f.work(f.workerConfig())()
		wait(59 * time.Second)
		require.Zero(f.t, f.ackTimeouts())
		for retry, delay := range []time.Duration{10 * time.Second, 20 * time.Second} {
			wait(1100 * time.Millisecond)
			got := f.get("m")
			require.Equal(f.t, delivery.StatusRetrying, got.Status)
			require.Equal(f.t, retry+1, got.RetryCount)
			require.Equal(f.t, delay, got.NextRetryAt.Sub(got.LastRetryAt))
			require.Equal(f.t, "delivery: not acknowledged in time", got.FailureReason())
			require.Empty(f.t, got.ClaimedBy)
			require.Equal(f.t, retry+1, f.ackTimeouts())
			require.Equal(f.t, retry+1, f.log.count("acknowledgment timeout"))

			wait(delay)
			got = f.get("m")
			require.Equal(f.t, delivery.StatusQueued, got.Status)
			require.Equal(f.t, got.Envelope(), f.outlet.envelopes()[retry])
			sent := delivery.Update{ID: "m", Status: delivery.StatusSent, RetryCount: retry + 1, At: time.Now(), DueAt: time.Now().Add(time.Minute)}
			f.update(sent)
			wait(59 * time.Second)
		}
		require.Empty(f.t, f.sink.all())
		wait(1100 * time.Millisecond)
		got := f.get("m")
		require.Equal(f.t, delivery.StatusFailed, got.Status)
		require.Equal(f.t, 3, got.RetryCount)
		require.Len(f.t, f.sink.all(), 1)
		letter := f.sink.all()[0]
		require.Equal(f.t, got.DeadLetterID, letter.ID)
		require.Equal(f.t, delivery.ReasonAckTimeout, letter.Reason)
		require.Equal(f.t, "delivery: not acknowledged in time", letter.Error)
		require.Equal(f.t, "memory", letter.Source)
		require.Equal(f.t, got.Envelope(), letter.Envelope)
		require.Equal(f.t, 3, f.ackTimeouts())
		require.Equal(f.t, 1, f.log.count("dead-lettered"))
	})
}

func TestOverdueAcknowledgmentsAreIgnored(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusSent, time.Now()))
		config := f.workerConfig()
		config.IgnoreAckTimeouts = true
		stop := f.work(config)
		wait(time.Hour)
		stop()
		require.Equal(f.t, delivery.StatusSent, f.get("m").Status)
		require.NoError(f.t, f.workOnce(f.workerConfig()))
		require.Equal(f.t, delivery.StatusRetrying, f.get("m").Status)
	})
}

// A worker that lost the claim counts nothing.
func TestAnOverdueAcknowledgmentIsCountedByTheClaimsHolder(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(stored("m", delivery.StatusSent, time.Now()))
		f.records.fail = func(operation string) error {
			if isUpdate(operation) {
				claim := delivery.Claim{Queue: "memory", Status: delivery.StatusSent, Token: "other", Now: time.Now().Add(time.Hour), Lease: time.Hour, Limit: 1}
				_, err := f.records.Store.Claim(context.Background(), claim)
				require.NoError(f.t, err)
			}
			return nil
		}
		require.NoError(f.t, f.workOnce(f.workerConfig()))
		require.Equal(f.t, delivery.StatusSent, f.get("m").Status)
		require.Zero(f.t, f.ackTimeouts())
	})
}
