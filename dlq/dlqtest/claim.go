package dlqtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/esh3artech/barid/dlq"
)

func testClaim(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entries(3)...)
	claim(t, store, "first", later, "entry-0001")

	ids := []string{"entry-0000", "entry-0001", "nobody", "entry-0002"}
	got, errs := store.Claim(ctx, dlq.Claim{Token: "second", Now: later, Lease: lease}, ids...)
	wantErrors(t, "Claim", errs, ids, nil, dlq.ErrClaimed, dlq.ErrNotFound, nil)
	if len(got) != len(ids) {
		t.Fatalf("Claim of %d ids returned %d entries", len(ids), len(got))
	}
	wantEntry(t, got[0], entry(0))
	wantEntry(t, got[1], dlq.Entry{})
	wantEntry(t, got[2], dlq.Entry{})
	wantEntry(t, got[3], entry(2))

	// A claimed entry can be read as before.
	got, errs = store.Get(ctx, "entry-0001")
	wantErrors(t, "Get", errs, ids[1:2])
	wantEntry(t, got[0], entry(1))
	wantKept(t, store, numbered(3)...)
}

func testClaimInvalid(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entry(0))
	ids := numbered(1)
	for name, invalid := range map[string]dlq.Claim{
		"no token":       {Now: later, Lease: lease},
		"no lease":       {Token: "token", Now: later},
		"negative lease": {Token: "token", Now: later, Lease: -lease},
	} {
		if _, errs := store.Claim(ctx, invalid, ids...); len(errs) != 1 || !errors.Is(errs[0], dlq.ErrInvalid) {
			t.Errorf("Claim with %s: %v, want ErrInvalid", name, errs)
		}
	}
	// An empty token is not the token of entries that nobody claimed.
	wantErrors(t, "Release", store.Release(ctx, "", ids...), ids, dlq.ErrClaimLost)
	wantErrors(t, "Remove", store.Remove(ctx, "", ids...), ids, dlq.ErrClaimLost)
	wantKept(t, store, ids...)
}

func testClaimExpires(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entry(0))
	ids := numbered(1)
	claim(t, store, "first", later, ids...)
	_, errs := store.Claim(ctx, dlq.Claim{Token: "second", Now: later.Add(lease - time.Microsecond), Lease: lease}, ids...)
	wantErrors(t, "Claim just before the lease ends", errs, ids, dlq.ErrClaimed)
	claim(t, store, "second", later.Add(lease), ids...)
	// The second claim has a lease of its own.
	_, errs = store.Claim(ctx, dlq.Claim{Token: "third", Now: later.Add(lease + lease/2), Lease: lease}, ids...)
	wantErrors(t, "Claim within the second lease", errs, ids, dlq.ErrClaimed)
}

func testClaimRenewed(t *testing.T, store dlq.Store) {
	put(t, store, entry(0))
	ids := numbered(1)
	claim(t, store, "first", later, ids...)
	claim(t, store, "first", later.Add(lease/2), ids...)
	_, errs := store.Claim(context.Background(), dlq.Claim{Token: "second", Now: later.Add(lease), Lease: lease}, ids...)
	wantErrors(t, "Claim of what was renewed", errs, ids, dlq.ErrClaimed)
	claim(t, store, "second", later.Add(lease+lease/2), ids...)
}

func testRelease(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entries(3)...)
	claim(t, store, "first", later, "entry-0000")
	claim(t, store, "second", later, "entry-0001")
	ids := []string{"entry-0000", "entry-0001", "entry-0002", "nobody"}
	wantErrors(t, "Release", store.Release(ctx, "first", ids...), ids, nil, dlq.ErrClaimLost, dlq.ErrClaimLost, dlq.ErrNotFound)
	wantErrors(t, "Release again", store.Release(ctx, "first", ids[0]), ids[:1], dlq.ErrClaimLost)

	claim(t, store, "third", later, "entry-0000", "entry-0002")
	_, errs := store.Claim(ctx, dlq.Claim{Token: "third", Now: later, Lease: lease}, "entry-0001")
	wantErrors(t, "Claim", errs, ids[1:2], dlq.ErrClaimed)
	wantKept(t, store, numbered(3)...)
}

func testRemove(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entries(4)...)
	claim(t, store, "first", later, "entry-0000", "entry-0003")
	claim(t, store, "second", later, "entry-0001")
	ids := []string{"entry-0000", "entry-0001", "entry-0002", "nobody"}
	wantErrors(t, "Remove", store.Remove(ctx, "first", ids...), ids, nil, dlq.ErrClaimLost, dlq.ErrClaimLost, dlq.ErrNotFound)
	wantErrors(t, "Remove again", store.Remove(ctx, "first", ids[0]), ids[:1], dlq.ErrNotFound)
	wantKept(t, store, "entry-0001", "entry-0002", "entry-0003")

	// Even after its lease, a claim entitles to Remove until someone else claims.
	wantErrors(t, "Remove", store.Remove(ctx, "first", "entry-0003"), []string{"entry-0003"})
	wantKept(t, store, "entry-0001", "entry-0002")
}

func testRemoveAfterAnotherClaim(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entry(0))
	ids := numbered(1)
	claim(t, store, "first", later, ids...)
	claim(t, store, "second", later.Add(lease), ids...)
	wantErrors(t, "Remove by the first", store.Remove(ctx, "first", ids...), ids, dlq.ErrClaimLost)
	wantErrors(t, "Release by the first", store.Release(ctx, "first", ids...), ids, dlq.ErrClaimLost)
	wantKept(t, store, ids...)
	wantErrors(t, "Remove by the second", store.Remove(ctx, "second", ids...), ids)
	wantKept(t, store)

	// A claim on a removed entry does not entitle to remove a later one.
	put(t, store, entry(0))
	wantErrors(t, "Remove of a later entry", store.Remove(ctx, "second", ids...), ids, dlq.ErrClaimLost)
	wantKept(t, store, ids...)
}

func testPutWhileClaimed(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entry(0))
	ids := numbered(1)
	claim(t, store, "first", later, ids...)
	newer := deadAt(0, start.Add(time.Minute))
	put(t, store, newer)

	_, errs := store.Claim(ctx, dlq.Claim{Token: "second", Now: later, Lease: lease}, ids...)
	wantErrors(t, "Claim of what was put while claimed", errs, ids, dlq.ErrClaimed)
	wantErrors(t, "Remove of what was put while claimed", store.Remove(ctx, "first", ids...), ids, dlq.ErrReplaced)
	wantErrors(t, "Remove again", store.Remove(ctx, "first", ids...), ids, dlq.ErrReplaced)
	wantErrors(t, "Release", store.Release(ctx, "first", ids...), ids)
	got, errs := store.Get(ctx, ids...)
	wantErrors(t, "Get", errs, ids)
	wantEntry(t, got[0], newer)

	// A new claim is for the new entry.
	got, errs = store.Claim(ctx, dlq.Claim{Token: "second", Now: later, Lease: lease}, ids...)
	wantErrors(t, "Claim", errs, ids)
	wantEntry(t, got[0], newer)
	wantErrors(t, "Remove", store.Remove(ctx, "second", ids...), ids)
	wantKept(t, store)
}

func testClaimGuardsDelete(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entries(3)...)
	claim(t, store, "token", later, "entry-0001")
	ids := numbered(3)
	wantErrors(t, "Delete", store.Delete(ctx, later.Add(lease-time.Microsecond), ids...), ids, nil, dlq.ErrClaimed, nil)
	wantKept(t, store, "entry-0001")
	wantErrors(t, "Delete after the lease", store.Delete(ctx, later.Add(lease), ids[1]), ids[1:2])
	wantKept(t, store)
}

func testClaimsAtOnce(t *testing.T, store dlq.Store) {
	const claimers, count = 8, 20
	put(t, store, entries(count)...)
	ids := numbered(count)
	var won [count]atomic.Int32
	var group sync.WaitGroup
	for c := range claimers {
		group.Go(func() {
			token := fmt.Sprintf("token-%d", c)
			_, errs := store.Claim(context.Background(), dlq.Claim{Token: token, Now: later, Lease: lease}, ids...)
			for i := range ids {
				switch {
				case len(errs) == 0 || errs[i] == nil:
					won[i].Add(1)
				case !errors.Is(errs[i], dlq.ErrClaimed):
					t.Errorf("Claim of %s: %v, want nil or ErrClaimed", ids[i], errs[i])
				}
			}
		})
	}
	group.Wait()
	for i := range won {
		if n := won[i].Load(); n != 1 {
			t.Errorf("%s was claimed by %d of %d, want 1", ids[i], n, claimers)
		}
	}
}

// testEverythingAtOnce lets several goroutines requeue the same entries, while
// others put, delete and read. No entry may be removed twice, and what nobody
// removed must still be there.
func testEverythingAtOnce(t *testing.T, store dlq.Store) {
	const requeuers, count = 4, 60
	ctx := context.Background()
	put(t, store, entries(count)...)
	ids := numbered(count)
	var removed [count]atomic.Int32
	var group sync.WaitGroup
	for r := range requeuers {
		group.Go(func() { requeueEach(t, store, ids, r*count/requeuers, removed[:]) })
	}
	group.Go(func() {
		for i := range count {
			if err := store.Put(ctx, entry(count+i)); err != nil {
				t.Errorf("Put: %v", err)
			}
		}
	})
	group.Go(func() {
		for i := range count / 2 {
			store.Delete(ctx, later, fmt.Sprintf("entry-%04d", count+i*2))
		}
	})
	group.Go(func() {
		for range 20 {
			if _, err := store.List(ctx, dlq.Query{Limit: 10}); err != nil {
				t.Errorf("List: %v", err)
			}
			if _, err := store.Stats(ctx, 5); err != nil {
				t.Errorf("Stats: %v", err)
			}
		}
	})
	group.Wait()
	for i := range ids {
		want := int32(1)
		if i%3 == 0 {
			want = 0
		}
		if n := removed[i].Load(); n != want {
			t.Errorf("%s was removed %d times, want %d", ids[i], n, want)
		}
		_, errs := store.Get(ctx, ids[i])
		if gone := len(errs) > 0 && errors.Is(errs[0], dlq.ErrNotFound); gone != (want == 1) {
			t.Errorf("%s: gone is %t, want %t", ids[i], gone, want == 1)
		}
	}
}

// requeueEach claims ids one after another, beginning with the one at first. Of
// the entries that it could claim, it releases every third and removes the
// others, which it counts.
func requeueEach(t *testing.T, store dlq.Store, ids []string, first int, removed []atomic.Int32) {
	ctx := context.Background()
	for i := range ids {
		i = (i + first) % len(ids)
		token := fmt.Sprintf("token-%d-%d", first, i)
		_, errs := store.Claim(ctx, dlq.Claim{Token: token, Now: later, Lease: lease}, ids[i])
		if len(errs) > 0 && errs[0] != nil {
			continue
		}
		if i%3 == 0 {
			wantErrors(t, "Release", store.Release(ctx, token, ids[i]), ids[i:i+1])
			continue
		}
		if errs := store.Remove(ctx, token, ids[i]); len(errs) == 0 || errs[0] == nil {
			removed[i].Add(1)
		}
	}
}
