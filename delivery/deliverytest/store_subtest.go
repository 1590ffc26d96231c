package deliverytest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// storeSubtest is one subtest of TestStore or TestSharedStore with its stores.
// Its methods fail the test when a store does not do what it has to.
type storeSubtest struct {
	*subtest
	store delivery.Store
	// stores are all on the same data, store the first of them.
	stores []delivery.Store
}

// storePatience is how long the suite waits for what has to happen.
const storePatience = 30 * time.Second

func newStoreSubtest(t *testing.T, patience time.Duration, stores ...delivery.Store) *storeSubtest {
	for _, store := range stores {
		if store == nil {
			t.Fatalf("open returned nil")
		}
	}
	return &storeSubtest{subtest: newSubtest(t, patience), store: stores[0], stores: stores}
}

// storeAt returns the stores in turn.
func (t *storeSubtest) storeAt(i int) delivery.Store { return t.stores[i%len(t.stores)] }

// checkAllSucceeded fails the test unless a call for n things succeeded for
// each.
func (t *storeSubtest) checkAllSucceeded(call string, errs []error, n int) {
	t.Helper()
	t.checkErrors(call, errs, make([]error, n)...)
}

// checkErrors fails the test unless the errors of a call are those wanted.
func (t *storeSubtest) checkErrors(call string, errs []error, want ...error) {
	t.Helper()
	if len(errs) != len(want) && (len(errs) != 0 || errors.Join(want...) != nil) {
		t.Fatalf("%s: %d errors for %d, want one for each: %v", call, len(errs), len(want), errors.Join(errs...))
	}
	if errs != nil && errors.Join(errs...) == nil {
		t.Errorf("%s: errors are not nil, though all went well", call)
	}
	for i, err := range errs {
		if !sameError(want[i], err) {
			t.Fatalf("%s: error %d is %v, want %v", call, i, err, want[i])
		}
	}
}

// sameError returns whether got is the error that is wanted. A LateError has to
// have the same fields; of other errors it is enough that they match.
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

// save saves records, which must succeed.
func (t *storeSubtest) save(records ...delivery.Record) {
	t.Helper()
	t.checkAllSucceeded("Save", t.store.Save(t.Context(), records...), len(records))
}

// update updates records, which must succeed.
func (t *storeSubtest) update(updates ...delivery.Update) []delivery.Progress {
	t.Helper()
	progress, errs := t.store.Update(t.Context(), updates...)
	t.checkAllSucceeded("Update", errs, len(updates))
	if len(progress) != len(updates) {
		t.Fatalf("Update: %d of progress for %d updates", len(progress), len(updates))
	}
	return progress
}

// get returns records, which must be there.
func (t *storeSubtest) get(ids ...string) []delivery.Record {
	t.Helper()
	records, errs := t.store.Get(t.Context(), ids...)
	t.checkAllSucceeded("Get", errs, len(ids))
	if len(records) != len(ids) {
		t.Fatalf("Get: %d records for %d IDs", len(records), len(ids))
	}
	return records
}

// checkRecords fails the test unless the store has each record as wanted.
func (t *storeSubtest) checkRecords(want ...delivery.Record) {
	t.Helper()
	for i, got := range t.get(idsOf(want)...) {
		if err := recordDifferences(&want[i], &got); err != nil {
			t.Errorf("record %.40q is not as it should be: %v", want[i].ID, err)
		}
	}
}

// checkMissing fails the test if the store has a record with any of the IDs.
func (t *storeSubtest) checkMissing(ids ...string) {
	t.Helper()
	records, errs := t.store.Get(t.Context(), ids...)
	t.checkErrors("Get", errs, slices.Repeat([]error{delivery.ErrNotFound}, len(ids))...)
	for i := range records {
		if err := recordDifferences(&delivery.Record{}, &records[i]); err != nil {
			t.Errorf("Get: what is not found is not the zero Record: %v", err)
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

// claim claims records, which must succeed.
func (t *storeSubtest) claim(status delivery.Status, token string, now time.Time, limit int) []delivery.Record {
	t.Helper()
	claimed, err := t.store.Claim(t.Context(), claimOf(status, token, now, limit))
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	return claimed
}

// storeLease is the lease of a claim, unless the test says otherwise.
const storeLease = time.Minute

func claimOf(status delivery.Status, token string, now time.Time, limit int) delivery.Claim {
	return delivery.Claim{Queue: storeQueue, Status: status, Token: token, Now: now, Lease: storeLease, Limit: limit}
}

// checkClaim claims records, and fails the test unless they are those wanted,
// in this order.
func (t *storeSubtest) checkClaim(status delivery.Status, token string, now time.Time, limit int, want ...string) {
	t.Helper()
	if got := idsOf(t.claim(status, token, now, limit)); !slices.Equal(got, want) {
		t.Errorf("Claim of %d that are %s at %s: %q, want %q", limit, status, now.Format(time.RFC3339Nano), got, want)
	}
}

// renew renews claims, which must succeed.
func (t *storeSubtest) renew(token string, until time.Time) {
	t.Helper()
	if err := t.store.Renew(t.Context(), storeQueue, token, until); err != nil {
		t.Errorf("Renew by %q: %v", token, err)
	}
}

func (t *storeSubtest) checkNextDue(want time.Time, statuses ...delivery.Status) {
	t.Helper()
	t.checkNextDueOf(storeQueue, want, statuses...)
}

func (t *storeSubtest) checkNextDueOf(queue string, want time.Time, statuses ...delivery.Status) {
	t.Helper()
	got, err := t.store.NextDue(t.Context(), queue, statuses...)
	if err != nil || !got.Equal(want) {
		t.Errorf("NextDue of %v in %q: %s, %v, want %s", statuses, queue, got, err, want)
	}
	if err := timeProblem(got); err != nil {
		t.Errorf("NextDue: %v", err)
	}
}

// checkPurge purges, and fails the test unless as many records are gone as
// wanted.
func (t *storeSubtest) checkPurge(before time.Time, limit, want int) {
	t.Helper()
	t.checkPurgeOf(storeQueue, before, limit, want)
}

func (t *storeSubtest) checkPurgeOf(queue string, before time.Time, limit, want int) {
	t.Helper()
	if got, err := t.store.Purge(t.Context(), queue, before, limit); err != nil || got != want {
		t.Errorf("Purge of up to %d of %q: %d, %v, want %d", limit, queue, got, err, want)
	}
}

func (t *storeSubtest) list(query delivery.RecordQuery) delivery.RecordPage {
	t.Helper()
	page, err := t.store.List(t.Context(), query)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return page
}

// listAll returns the records of all pages. It calls between, unless that is
// nil, after each page but the last.
func (t *storeSubtest) listAll(query delivery.RecordQuery, between func()) []delivery.Record {
	t.Helper()
	var all []delivery.Record
	for pages := 0; ; pages++ {
		page := t.list(query)
		if limit := query.Limit; limit > 0 && len(page.Records) > limit {
			t.Errorf("List: %d records on a page of %d", len(page.Records), limit)
		}
		if page.Next != "" && len(page.Records) == 0 {
			t.Fatalf("List: an empty page with a next one")
		}
		all = append(all, page.Records...)
		if page.Next == "" {
			return all
		}
		if pages > 10_000 {
			t.Fatalf("List: no end after %d pages", pages)
		}
		query.Cursor = page.Next
		if between != nil {
			between()
		}
	}
}

// checkList lists all pages, and fails the test unless the records are those
// wanted, in this order.
func (t *storeSubtest) checkList(what string, query delivery.RecordQuery, want ...string) {
	t.Helper()
	if got := idsOf(t.listAll(query, nil)); !slices.Equal(got, want) {
		t.Errorf("List %s: %.400s, want %.400s", what, fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
	}
}
