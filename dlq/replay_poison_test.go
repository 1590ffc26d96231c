package dlq_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// Under a cap of some a second entries go one by one. One that always fails, or
// several in a row, must not hold back the others: those behind tell that it is
// not the transport.
func TestReplayOneByOnePassesByWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 20)
		poison := errors.New("frame can't be written")
		var mu sync.Mutex
		tries := make(map[string]int)
		times := &times{}
		sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
			times.note(len(envelopes))
			mu.Lock()
			defer mu.Unlock()
			id := envelopes[0].ID
			tries[id]++
			if slices.Contains([]string{"message of letter-00000", "message of letter-00004", "message of letter-00005", "message of letter-00006", "message of letter-00019"}, id) {
				return poison
			}
			return nil
		}}
		manager := dlq.NewManager(store, sender, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 1)
		<-time.After(time.Hour)
		job = progress(t, manager, job.ID)
		t.Log(job.LastError, tries)
		// Behind the last there is nothing that could tell.
		assert.Equal(t, []int{15, 0, 4}, []int{job.Requeued, job.Skipped, job.Failed})
		assert.Equal(t, dlq.JobRunning, job.Status)
		assert.Equal(t, poison.Error(), job.LastError)
		for id, n := range tries {
			if id != "message of letter-00019" {
				assert.LessOrEqual(t, n, 40, id)
			}
		}
		times.requireCap(t, 1)
	})
}

func TestReplayPassesByWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := filled(t, 20)
		all, _ := letters(6)
		for i := range all {
			all[i].At = time.Now().Add(-time.Hour)
		}
		all[0].Reason = delivery.ReasonMalformed
		all[1].Envelope.Recipient = ""
		poison := errors.New("frame \"x\" can't be written")
		sender := &sender{forward: partly(map[string]error{
			"message of letter-002": &delivery.TooLargeError{Field: "Body"},
			"message of letter-003": poison,
			"message of letter-004": poison,
		})}
		manager := requeuer(t, store, sender, dlq.Config{BatchSize: 4}, all...)
		store.Claim(t.Context(), dlq.Claim{Token: "somebody", Now: time.Now(), Lease: time.Hour}, "letter-005", "letter-00010")
		preview, err := manager.Preview(t.Context(), dlq.Filter{})
		require.NoError(t, err)
		assert.Equal(t, 26, preview.Count)
		assert.Equal(t, 1, preview.Malformed)

		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, []int{26, 19, 2, 5}, []int{job.Total, job.Requeued, job.Skipped, job.Failed})
		assert.Contains(t, job.LastError, poison.Error())
		assert.ElementsMatch(t, []string{"letter-000", "letter-001", "letter-002", "letter-003", "letter-004", "letter-005", "letter-00010"}, kept(t, manager))
		results, _ := manager.Delete(t.Context(), "letter-000", "letter-001", "letter-002", "letter-003", "letter-004")
		for _, result := range results {
			assert.NoError(t, result.Err, "it is free again")
		}
	})
}

// A queue takes a few at a time and refuses the others: that is no fault of
// theirs, however often it happens.
func TestReplayIntoAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := make(map[string]int)
		sender := &sender{forward: func(_ context.Context, envelopes []delivery.Envelope) error {
			failed := &delivery.ResultsError{}
			for i := range envelopes {
				result := delivery.Result{ID: envelopes[i].ID, Err: delivery.ErrRefused}
				if i == len(envelopes)-1 {
					result.Err = nil
					taken[result.ID]++
				}
				failed.Results = append(failed.Results, result)
			}
			if len(envelopes) == 1 {
				return nil
			}
			return failed
		}}
		manager := dlq.NewManager(filled(t, 60), sender, dlq.Config{})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Hour)
		job = progress(t, manager, job.ID)
		assert.Equal(t, dlq.JobDone, job.Status)
		assert.Equal(t, 60, job.Requeued)
		assert.Zero(t, job.Failed)
		for id, n := range taken {
			assert.Equal(t, 1, n, id)
		}
	})
}

// An error that nobody knows befalls one entry for a while, and others are sent
// meanwhile: it is tried again before it counts against the entry.
func TestReplayTriesAgainWhatMayBeAnEntrysFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		sender := &sender{forward: func(ctx context.Context, envelopes []delivery.Envelope) error {
			return partly(map[string]error{"message of letter-00003": func() error {
				if slices.ContainsFunc(envelopes, func(e delivery.Envelope) bool { return e.ID == "message of letter-00003" }) && tries.Add(1) <= 4 {
					return errors.New("odd")
				}
				return nil
			}()})(ctx, envelopes)
		}}
		manager := dlq.NewManager(filled(t, 10), sender, dlq.Config{BatchSize: 5})
		defer running(t, manager)()
		job := start(t, manager, dlq.Filter{}, 0)
		<-time.After(time.Minute)
		job = progress(t, manager, job.ID)
		assert.Equal(t, []int{10, 0}, []int{job.Requeued, job.Failed})
		assert.EqualValues(t, 5, tries.Load())
	})
}
