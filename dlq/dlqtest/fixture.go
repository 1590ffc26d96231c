package dlqtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// start is the time of the first entry; each further one is a second later.
var start = time.Date(2026, time.March, 4, 5, 6, 7, 123456000, time.UTC)

// later is the time of all claims, deletions and purges, unless a test says
// otherwise.
var later = start.Add(time.Hour)

const lease = time.Minute

// maxPages is more than any test needs. A store that returns pages without end
// fails instead of hanging.
const maxPages = 1000

// numbered returns the ids of n entries, the oldest first.
func numbered(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("entry-%04d", i)
	}
	return ids
}

// entry returns the i-th entry, with something in every field.
func entry(i int) dlq.Entry {
	at := start.Add(time.Duration(i) * time.Second)
	text := fmt.Sprintf("provider said %d", i)
	return dlq.Entry{
		ID: fmt.Sprintf("entry-%04d", i),
		Envelope: delivery.Envelope{
			Message: delivery.Message{
				ID:             fmt.Sprintf("message-%d", i),
				IdempotencyKey: fmt.Sprintf("key-%d", i),
				Recipient:      "+966500000001",
				Subject:        "your parcel",
				Type:           "sms",
				Body:           []byte(fmt.Sprintf(`{"number":%d}`, i)),
				ContentType:    "application/json",
				Headers:        map[string]string{"trace": strconv.Itoa(i), "empty": ""},
				Priority:       delivery.High,
				CreatedAt:      at.Add(-time.Minute),
				NotBefore:      at.Add(-time.Second),
				ExpiresAt:      at.Add(24 * time.Hour),
				RequireAck:     true,
			},
			Attempt:    2,
			Generation: 1,
			History: []delivery.Failure{
				{At: at.Add(-2 * time.Second), Attempt: 1, Error: "first"},
				{At: at.Add(-time.Second), Attempt: 2, Error: text},
			},
		},
		Reason:        delivery.ReasonExhausted,
		Error:         text,
		Fingerprint:   dlq.Fingerprint(text),
		Source:        "sms-consumer",
		Facts:         map[string]string{"queue": "sms.normal", "count": strconv.Itoa(i)},
		FirstFailedAt: at.Add(-2 * time.Second),
		DeadAt:        at,
	}
}

func entries(n int) []dlq.Entry {
	all := make([]dlq.Entry, n)
	for i := range all {
		all[i] = entry(i)
	}
	return all
}

// put puts entries, or fails the test.
func put(t *testing.T, store dlq.Store, all ...dlq.Entry) {
	t.Helper()
	if err := store.Put(context.Background(), all...); err != nil {
		t.Fatalf("Put of %d entries: %v", len(all), err)
	}
}

func claim(t *testing.T, store dlq.Store, token string, now time.Time, ids ...string) {
	t.Helper()
	_, errs := store.Claim(context.Background(), dlq.Claim{Token: token, Now: now, Lease: lease}, ids...)
	wantErrors(t, "Claim", errs, ids)
}

// wantErrors checks what a method for several ids returned. want has one error
// for each id, or is empty when all have to be nil.
func wantErrors(t *testing.T, method string, errs []error, ids []string, want ...error) {
	t.Helper()
	if len(want) == 0 {
		want = make([]error, len(ids))
	}
	if len(errs) == 0 {
		errs = make([]error, len(ids))
	}
	if len(errs) != len(want) {
		t.Fatalf("%s of %d ids returned %d errors", method, len(ids), len(errs))
	}
	for i := range want {
		if !errors.Is(errs[i], want[i]) {
			t.Errorf("%s of %s: error is %v, want %v", method, ids[i], errs[i], want[i])
		}
	}
}

// wantKept checks that exactly these entries are in the store, oldest first.
func wantKept(t *testing.T, store dlq.Store, ids ...string) {
	t.Helper()
	count, err := store.Count(context.Background(), dlq.Filter{})
	if err != nil || count != len(ids) {
		t.Errorf("Count is %d, %v, want %d", count, err, len(ids))
	}
	if got := walk(t, store, dlq.Query{Order: dlq.OldestFirst, Limit: dlq.MaxLimit}); !slices.Equal(got, ids) {
		t.Errorf("kept are %q, want %q", got, ids)
	}
}

// walk reads all pages of a query and returns the ids.
func walk(t *testing.T, store dlq.Store, query dlq.Query) []string {
	t.Helper()
	var ids []string
	for range maxPages {
		page := list(t, store, query)
		for i := range page.Entries {
			ids = append(ids, page.Entries[i].ID)
		}
		if page.Next == "" {
			return ids
		}
		if len(page.Entries) == 0 {
			t.Fatal("List returned a page without entries that is not the last")
		}
		query.Cursor = page.Next
	}
	t.Fatal("List returns pages without end")
	return nil
}

func list(t *testing.T, store dlq.Store, query dlq.Query) dlq.Page {
	t.Helper()
	page, err := store.List(context.Background(), query)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return page
}

// wantEntry checks all fields. Times may be in different zones.
func wantEntry(t *testing.T, got, want dlq.Entry) {
	t.Helper()
	gotText, gotErr := json.Marshal(got)
	wantText, wantErr := json.Marshal(want)
	if gotErr != nil || wantErr != nil {
		t.Fatalf("json.Marshal: %v, %v", gotErr, wantErr)
	}
	if !bytes.Equal(gotText, wantText) {
		t.Errorf("entry %s is not what was put:\n got %.2000s\nwant %.2000s", want.ID, gotText, wantText)
	}
}
