package deliverytest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// storeRig is one subtest with its store. Its methods fail the test when the
// store does not do what it has to.
type storeRig struct {
	*rig
	store delivery.Store
	// stores are all on the same data, store the first of them.
	stores []delivery.Store
}

// storePatience is how long the suite waits for what has to happen.
const storePatience = 30 * time.Second

func newStoreRig(t *testing.T, patience time.Duration, stores ...delivery.Store) *storeRig {
	for _, store := range stores {
		if store == nil {
			t.Fatalf("open returned nil")
		}
	}
	return &storeRig{rig: newRig(t, Harness{Patience: patience}), store: stores[0], stores: stores}
}

// any returns the stores in turn.
func (r *storeRig) any(i int) delivery.Store { return r.stores[i%len(r.stores)] }

// all fails the test unless a call for n things went well for each.
func (r *storeRig) all(call string, errs []error, n int) {
	r.Helper()
	r.errors(call, errs, make([]error, n)...)
}

// errors fails the test unless the call's errors match those wanted.
func (r *storeRig) errors(call string, errs []error, want ...error) {
	r.Helper()
	if len(errs) != len(want) && (len(errs) != 0 || errors.Join(want...) != nil) {
		r.Fatalf("%s: %d errors for %d, want one for each: %v", call, len(errs), len(want), errors.Join(errs...))
	}
	if errs != nil && errors.Join(errs...) == nil {
		r.Errorf("%s: errors are not nil, though all went well", call)
	}
	for i, err := range errs {
		if !sameError(want[i], err) {
			r.Fatalf("%s: error %d is %v, want %v", call, i, err, want[i])
		}
	}
}

// sameError says whether got is what want says. A LateError has to tell the
// same; of others it is enough that they match.
func sameError(want, got error) bool {
	var wantLate, gotLate *delivery.LateError
	if errors.As(want, &wantLate) {
		return errors.As(got, &gotLate) && *gotLate == *wantLate
	}
	if want == nil {
		return got == nil
	}
	return errors.Is(got, want)
}

func (r *storeRig) save(records ...delivery.Record) {
	r.Helper()
	r.all("Save", r.store.Save(r.Context(), records...), len(records))
}

func (r *storeRig) update(updates ...delivery.Update) []delivery.Progress {
	r.Helper()
	progress, errs := r.store.Update(r.Context(), updates...)
	r.all("Update", errs, len(updates))
	if len(progress) != len(updates) {
		r.Fatalf("Update: %d of progress for %d updates", len(progress), len(updates))
	}
	return progress
}

func (r *storeRig) get(ids ...string) []delivery.Record {
	r.Helper()
	records, errs := r.store.Get(r.Context(), ids...)
	r.all("Get", errs, len(ids))
	if len(records) != len(ids) {
		r.Fatalf("Get: %d records for %d IDs", len(records), len(ids))
	}
	return records
}

// kept fails the test unless the store has each record as wanted.
func (r *storeRig) kept(want ...delivery.Record) {
	r.Helper()
	for i, got := range r.get(idsOf(want)...) {
		if err := recordDifferences(&want[i], &got); err != nil {
			r.Errorf("record %.40q is not as it should be: %v", want[i].ID, err)
		}
	}
}

// gone fails the test if the store has any of the IDs.
func (r *storeRig) gone(ids ...string) {
	r.Helper()
	records, errs := r.store.Get(r.Context(), ids...)
	r.errors("Get", errs, slices.Repeat([]error{delivery.ErrNotFound}, len(ids))...)
	for i := range records {
		if err := recordDifferences(&delivery.Record{}, &records[i]); err != nil {
			r.Errorf("Get: what is not found is not the zero Record: %v", err)
		}
	}
}

func idsOf(records []delivery.Record) []string {
	ids := make([]string, len(records))
	for i := range records {
		ids[i] = records[i].ID
	}
	return ids
}

func (r *storeRig) claim(status delivery.Status, token string, now time.Time, limit int) []delivery.Record {
	r.Helper()
	claimed, err := r.store.Claim(r.Context(), claimOf(status, token, now, limit))
	if err != nil {
		r.Fatalf("Claim: %v", err)
	}
	return claimed
}

// storeLease is how long claims last, unless said otherwise.
const storeLease = time.Minute

func claimOf(status delivery.Status, token string, now time.Time, limit int) delivery.Claim {
	return delivery.Claim{Status: status, Token: token, Now: now, Lease: storeLease, Limit: limit}
}

// claims fails the test unless a claim is for the IDs in this order.
func (r *storeRig) claims(status delivery.Status, token string, now time.Time, limit int, want ...string) {
	r.Helper()
	if got := idsOf(r.claim(status, token, now, limit)); !slices.Equal(got, want) {
		r.Errorf("Claim of %d that are %s at %s: %q, want %q", limit, status, now.Format(time.RFC3339Nano), got, want)
	}
}

func (r *storeRig) renew(token string, until time.Time, want int) {
	r.Helper()
	if got, err := r.store.Renew(r.Context(), token, until); err != nil || got != want {
		r.Errorf("Renew by %q: %d, %v, want %d", token, got, err, want)
	}
}

func (r *storeRig) nextDue(want time.Time, statuses ...delivery.Status) {
	r.Helper()
	got, err := r.store.NextDue(r.Context(), statuses...)
	if err != nil || !got.Equal(want) {
		r.Errorf("NextDue of %v: %s, %v, want %s", statuses, got, err, want)
	}
	if err := improper(got); err != nil {
		r.Errorf("NextDue: %v", err)
	}
}

func (r *storeRig) purge(before time.Time, limit, want int) {
	r.Helper()
	if got, err := r.store.Purge(r.Context(), before, limit); err != nil || got != want {
		r.Errorf("Purge of up to %d: %d, %v, want %d", limit, got, err, want)
	}
}

func (r *storeRig) list(query delivery.RecordQuery) delivery.RecordPage {
	r.Helper()
	page, err := r.store.List(r.Context(), query)
	if err != nil {
		r.Fatalf("List: %v", err)
	}
	return page
}

// walk returns all pages' records, and calls between after each page.
func (r *storeRig) walk(query delivery.RecordQuery, between func()) []delivery.Record {
	r.Helper()
	var all []delivery.Record
	for pages := 0; ; pages++ {
		page := r.list(query)
		if limit := query.Limit; limit > 0 && len(page.Records) > limit {
			r.Errorf("List: %d records on a page of %d", len(page.Records), limit)
		}
		if page.Next != "" && len(page.Records) == 0 {
			r.Fatalf("List: an empty page with a next one")
		}
		all = append(all, page.Records...)
		if page.Next == "" {
			return all
		}
		if pages > 10_000 {
			r.Fatalf("List: no end after %d pages", pages)
		}
		query.Cursor = page.Next
		if between != nil {
			between()
		}
	}
}

func (r *storeRig) lists(what string, query delivery.RecordQuery, want ...string) {
	r.Helper()
	if got := idsOf(r.walk(query, nil)); !slices.Equal(got, want) {
		r.Errorf("List %s: %.400s, want %.400s", what, fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
	}
}
