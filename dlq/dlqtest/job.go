package dlqtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// TestJobStore runs the suite of dlq.JobStore. It calls open for each of its
// parts. open returns an empty store that nobody else uses.
func TestJobStore(t *testing.T, open func(t *testing.T) dlq.JobStore) {
	for _, part := range []struct {
		name string
		test func(*testing.T, dlq.JobStore)
	}{
		{"Empty", testJobEmpty},
		{"Saved", testJobSaved},
		{"Versions", testJobVersions},
		{"Invalid", testJobInvalid},
		{"Odd", testJobOdd},
		{"Order", testJobOrder},
		{"Deleted", testJobDeleted},
		{"SavedAtOnce", testJobSavedAtOnce},
		{"ContextEnded", testJobContextEnded},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, open(t)) })
	}
}

// job returns one with something in every field. It is not yet saved.
func job(i int) dlq.Job {
	at := start.Add(time.Duration(i) * time.Second)
	return dlq.Job{
		ID: fmt.Sprintf("job-%04d", i),
		Filter: dlq.Filter{
			Reason: delivery.ReasonExhausted, Recipient: "+966500000001", Type: "sms", Fingerprint: "fingerprint", Source: "sms-consumer",
			Since: at.Add(-time.Hour), Until: at,
		},
		Rate:       12.5,
		Status:     dlq.JobRunning,
		Total:      1000,
		Requeued:   500,
		Skipped:    20,
		Failed:     3,
		LastError:  "connection refused",
		After:      delivery.Position{At: at.Add(-time.Minute), ID: "entry-0523"},
		NextAt:     at.Add(90 * time.Second),
		Sends:      3,
		SendsNext:  2,
		CreatedAt:  at,
		UpdatedAt:  at.Add(time.Minute),
		FinishedAt: at.Add(2 * time.Minute),
		Owner:      "runner",
		LeaseUntil: at.Add(3 * time.Minute),
	}
}

// saved saves a job and returns it as the store has it then.
func saved(t *testing.T, store dlq.JobStore, job dlq.Job) dlq.Job {
	t.Helper()
	if err := store.SaveJob(context.Background(), job); err != nil {
		t.Fatalf("SaveJob of %s at version %d: %v", job.ID, job.Version, err)
	}
	job.Version++
	return job
}

// wantJob checks all fields. Times may be in different zones.
func wantJob(t *testing.T, got, want dlq.Job) {
	t.Helper()
	gotText, gotErr := json.Marshal(got)
	wantText, wantErr := json.Marshal(want)
	if gotErr != nil || wantErr != nil {
		t.Fatalf("json.Marshal: %v, %v", gotErr, wantErr)
	}
	if !bytes.Equal(gotText, wantText) {
		t.Errorf("job %s is not what was saved:\n got %s\nwant %s", want.ID, gotText, wantText)
	}
}

// wantJobs checks that exactly these jobs are in the store, in this order.
func wantJobs(t *testing.T, store dlq.JobStore, want ...dlq.Job) {
	t.Helper()
	got, err := store.Jobs(context.Background())
	if err != nil || len(got) != len(want) {
		t.Fatalf("Jobs returns %d, %v, want %d", len(got), err, len(want))
	}
	for i := range want {
		wantJob(t, got[i], want[i])
	}
}

func wantNoJob(t *testing.T, store dlq.JobStore, id string) {
	t.Helper()
	if _, err := store.Job(context.Background(), id); !errors.Is(err, dlq.ErrJobNotFound) {
		t.Errorf("Job of %s: %v, want ErrJobNotFound", id, err)
	}
}

func testJobEmpty(t *testing.T, store dlq.JobStore) {
	wantJobs(t, store)
	wantNoJob(t, store, "nobody")
	wantNoJob(t, store, "")
	if err := store.DeleteJobs(context.Background()); err != nil {
		t.Errorf("DeleteJobs of no ids: %v", err)
	}
	if err := store.DeleteJobs(context.Background(), "nobody"); err != nil {
		t.Errorf("DeleteJobs of nobody: %v", err)
	}
}

func testJobSaved(t *testing.T, store dlq.JobStore) {
	full := saved(t, store, job(1))
	plain := saved(t, store, dlq.Job{ID: "plain", Status: dlq.JobDone, CreatedAt: start})
	for _, want := range []dlq.Job{full, plain} {
		got, err := store.Job(context.Background(), want.ID)
		if err != nil {
			t.Fatalf("Job: %v", err)
		}
		wantJob(t, got, want)
	}
	wantJobs(t, store, full, plain)

	// A field that is set back to zero is stored as such.
	plain.Requeued, plain.After = 7, delivery.Position{At: start, ID: "entry"}
	plain = saved(t, store, plain)
	full.Filter, full.After, full.LastError, full.Owner, full.LeaseUntil = dlq.Filter{}, delivery.Position{}, "", "", time.Time{}
	full.Requeued, full.Rate, full.Status = 0, 0, dlq.JobCancelled
	full = saved(t, store, full)
	wantJobs(t, store, full, plain)
}

func testJobVersions(t *testing.T, store dlq.JobStore) {
	ctx := context.Background()
	first := job(0)
	first.Version = 1
	if err := store.SaveJob(ctx, first); !errors.Is(err, dlq.ErrJobNotFound) {
		t.Errorf("SaveJob of what is not there: %v, want ErrJobNotFound", err)
	}
	wantJobs(t, store)

	kept := saved(t, store, job(0))
	kept.Requeued++
	kept = saved(t, store, kept)
	if kept.Version != 2 {
		t.Fatalf("version is %d, want 2", kept.Version)
	}
	for _, version := range []int64{0, 1, 3, 1 << 40} {
		other := job(0)
		other.Version, other.LastError = version, "must not be kept"
		if err := store.SaveJob(ctx, other); !errors.Is(err, dlq.ErrJobChanged) {
			t.Errorf("SaveJob with version %d over version 2: %v, want ErrJobChanged", version, err)
		}
	}
	wantJobs(t, store, kept)
	for range 20 {
		kept.Requeued++
		kept = saved(t, store, kept)
	}
	wantJobs(t, store, kept)
}

func testJobInvalid(t *testing.T, store dlq.JobStore) {
	nameless, negative := job(0), job(0)
	nameless.ID, negative.Version = "", -1
	for name, invalid := range map[string]dlq.Job{"without an ID": nameless, "with a negative version": negative} {
		if err := store.SaveJob(context.Background(), invalid); !errors.Is(err, dlq.ErrInvalid) {
			t.Errorf("SaveJob %s: %v, want ErrInvalid", name, err)
		}
	}
	wantJobs(t, store)
}

// testJobOdd saves texts that JSON, SQL or key patterns may get wrong.
func testJobOdd(t *testing.T, store dlq.JobStore) {
	for _, text := range []string{
		" ", "'; DROP TABLE jobs; --", `"\`, "{a}:b*?[c]%_", "سلام 📮", "line\nfeed\x00nul\r", "bad \xff utf8", "base64:AAAA", strings.Repeat("long ", 90),
	} {
		odd := job(0)
		odd.ID, odd.Owner, odd.LastError, odd.After.ID = "odd "+text, text, text, text
		odd.Filter = dlq.Filter{Reason: delivery.Reason(text), Recipient: text, Type: text, Fingerprint: text, Source: text}
		odd = saved(t, store, odd)
		odd = saved(t, store, odd)
		got, err := store.Job(context.Background(), odd.ID)
		if err != nil {
			t.Fatalf("Job of %q: %v", odd.ID, err)
		}
		wantJob(t, got, odd)
		if err := store.DeleteJobs(context.Background(), odd.ID); err != nil {
			t.Errorf("DeleteJobs of %q: %v", odd.ID, err)
		}
	}
	wantJobs(t, store)
}

func testJobOrder(t *testing.T, store dlq.JobStore) {
	const count = 150
	want := make([]dlq.Job, 0, count)
	for i := range count {
		// Neither in the order of their times nor of their IDs.
		j := job(i * 7 % count)
		j.CreatedAt = start.Add(time.Duration(i/2) * time.Microsecond)
		want = append(want, saved(t, store, j))
	}
	slices.SortFunc(want, func(a, b dlq.Job) int {
		if byTime := b.CreatedAt.Compare(a.CreatedAt); byTime != 0 {
			return byTime
		}
		return strings.Compare(b.ID, a.ID)
	})
	wantJobs(t, store, want...)
}

func testJobDeleted(t *testing.T, store dlq.JobStore) {
	first, second, third := saved(t, store, job(1)), saved(t, store, job(2)), saved(t, store, job(3))
	if err := store.DeleteJobs(context.Background(), first.ID, "nobody", third.ID, third.ID); err != nil {
		t.Errorf("DeleteJobs: %v", err)
	}
	wantJobs(t, store, second)
	wantNoJob(t, store, first.ID)
	if err := store.SaveJob(context.Background(), first); !errors.Is(err, dlq.ErrJobNotFound) {
		t.Errorf("SaveJob of what was deleted: %v, want ErrJobNotFound", err)
	}
	// The ID may be used again.
	wantJobs(t, store, second, saved(t, store, job(1)))
}

// testJobSavedAtOnce lets several goroutines change the same job. Of those that
// have read the same version one succeeds, so that no change gets lost.
func testJobSavedAtOnce(t *testing.T, store dlq.JobStore) {
	const writers, rounds = 8, 10
	ctx := context.Background()
	fresh := job(0)
	fresh.Requeued = 0
	var created atomic.Int32
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			switch err := store.SaveJob(ctx, fresh); {
			case err == nil:
				created.Add(1)
			case !errors.Is(err, dlq.ErrJobChanged):
				t.Errorf("SaveJob: %v, want nil or ErrJobChanged", err)
			}
			for done := 0; done < rounds; {
				current, err := store.Job(ctx, fresh.ID)
				if err != nil {
					t.Errorf("Job: %v", err)
					return
				}
				current.Requeued++
				switch err := store.SaveJob(ctx, current); {
				case err == nil:
					done++
				case !errors.Is(err, dlq.ErrJobChanged):
					t.Errorf("SaveJob: %v, want nil or ErrJobChanged", err)
					return
				}
			}
		})
	}
	group.Wait()
	if n := created.Load(); n != 1 {
		t.Errorf("the job was created %d times, want 1", n)
	}
	fresh.Requeued, fresh.Version = writers*rounds, writers*rounds+1
	wantJobs(t, store, fresh)
}

func testJobContextEnded(t *testing.T, store dlq.JobStore) {
	kept := saved(t, store, job(0))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, jobErr := store.Job(ended, kept.ID)
	_, jobsErr := store.Jobs(ended)
	for method, err := range map[string]error{
		"SaveJob": store.SaveJob(ended, kept), "Job": jobErr, "Jobs": jobsErr, "DeleteJobs": store.DeleteJobs(ended, kept.ID),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s after the context's end: %v, want context.Canceled", method, err)
		}
	}
	wantJobs(t, store, kept)
}
