package dlqtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

func testListOrder(t *testing.T, store dlq.Store) {
	all := entries(10)
	// Put in another order than that of their times.
	put(t, store, all[5:]...)
	put(t, store, all[:5]...)
	oldest := numbered(10)
	newest := slices.Clone(oldest)
	slices.Reverse(newest)
	for _, limit := range []int{1, 3, 5, 10, 11, 0} {
		if got := walk(t, store, dlq.Query{Order: dlq.OldestFirst, Limit: limit}); !slices.Equal(got, oldest) {
			t.Errorf("oldest first with limit %d is %q", limit, got)
		}
		if got := walk(t, store, dlq.Query{Limit: limit}); !slices.Equal(got, newest) {
			t.Errorf("newest first with limit %d is %q", limit, got)
		}
	}
	if page := list(t, store, dlq.Query{Limit: 10}); page.Next != "" {
		t.Error("the last page, which is full, has a Next")
	}
	if page := list(t, store, dlq.Query{Limit: 9}); page.Next == "" || len(page.Entries) != 9 {
		t.Errorf("a page of 9 out of 10 has %d entries and Next %q", len(page.Entries), page.Next)
	}
}

func testListFilters(t *testing.T, store dlq.Store) {
	all := mixedEntries(40)
	put(t, store, all...)
	for name, filter := range map[string]dlq.Filter{
		"all":         {},
		"reason":      {Reason: delivery.ReasonPermanent},
		"recipient":   {Recipient: "recipient-1"},
		"type":        {Type: "type-2"},
		"fingerprint": {Fingerprint: "fingerprint-3"},
		"source":      {Source: "source-4"},
		"since":       {Since: all[30].DeadAt},
		"until":       {Until: all[30].DeadAt},
		"range":       {Since: all[10].DeadAt, Until: all[12].DeadAt},
		"between":     {Since: all[10].DeadAt.Add(time.Microsecond), Until: all[11].DeadAt},
		"zone":        {Since: all[30].DeadAt.In(time.FixedZone("east", 3*3600))},
		"two":         {Reason: delivery.ReasonExhausted, Type: "type-2"},
		"none":        {Reason: delivery.ReasonExhausted, Type: "type-1"},
		"unknown":     {Recipient: "nobody"},
		"prefix":      {Recipient: "recipient-"},
		"case":        {Recipient: "RECIPIENT-1"},
		"everything": {
			Reason: all[9].Reason, Recipient: "recipient-0", Type: "type-1", Fingerprint: "fingerprint-4", Source: "source-2",
			Since: all[9].DeadAt, Until: all[10].DeadAt,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkFilter(t, store, filter, all)
		})
	}
}

// checkFilter counts and lists by a filter. The entries are all that are in the
// store, oldest first.
func checkFilter(t *testing.T, store dlq.Store, filter dlq.Filter, all []dlq.Entry) {
	t.Helper()
	var want []string
	for i := range all {
		if filter.Match(&all[i]) {
			want = append(want, all[i].ID)
		}
	}
	if count, err := store.Count(context.Background(), filter); err != nil || count != len(want) {
		t.Errorf("Count is %d, %v, want %d", count, err, len(want))
	}
	for _, limit := range []int{0, 2} {
		if got := walk(t, store, dlq.Query{Filter: filter, Order: dlq.OldestFirst, Limit: limit}); !slices.Equal(got, want) {
			t.Errorf("oldest first, limit %d: %q, want %q", limit, got, want)
		}
	}
	slices.Reverse(want)
	if got := walk(t, store, dlq.Query{Filter: filter, Limit: 3}); !slices.Equal(got, want) {
		t.Errorf("newest first: %q, want %q", got, want)
	}
}

// mixedEntries returns n entries that differ in all fields of a Filter.
func mixedEntries(n int) []dlq.Entry {
	all := entries(n)
	for i := range all {
		all[i].Reason = []delivery.Reason{delivery.ReasonExhausted, delivery.ReasonPermanent}[i%2]
		all[i].Envelope.Recipient = fmt.Sprintf("recipient-%d", i%3)
		all[i].Envelope.Type = fmt.Sprintf("type-%d", i%4)
		all[i].Fingerprint = fmt.Sprintf("fingerprint-%d", i%5)
		all[i].Source = fmt.Sprintf("source-%d", i%7)
	}
	return all
}

func testListLimits(t *testing.T, store dlq.Store) {
	put(t, store, entries(dlq.DefaultLimit+1)...)
	if got := len(list(t, store, dlq.Query{}).Entries); got != dlq.DefaultLimit {
		t.Errorf("a page has %d entries by default, want %d", got, dlq.DefaultLimit)
	}
	for _, limit := range []int{-1, math.MinInt, dlq.MaxLimit + 1, math.MaxInt} {
		if _, err := store.List(context.Background(), dlq.Query{Limit: limit}); !errors.Is(err, dlq.ErrQuery) {
			t.Errorf("List with limit %d: %v, want ErrQuery", limit, err)
		}
	}
	if _, err := store.List(context.Background(), dlq.Query{Order: 7}); !errors.Is(err, dlq.ErrQuery) {
		t.Errorf("List with an unknown order: %v, want ErrQuery", err)
	}
	never := dlq.Filter{Since: later, Until: later}
	if _, err := store.List(context.Background(), dlq.Query{Filter: never}); !errors.Is(err, dlq.ErrQuery) {
		t.Errorf("List of no time at all: %v, want ErrQuery", err)
	}
	if _, err := store.Count(context.Background(), never); !errors.Is(err, dlq.ErrQuery) {
		t.Errorf("Count of no time at all: %v, want ErrQuery", err)
	}
}

func testListCursors(t *testing.T, store dlq.Store) {
	put(t, store, entries(6)...)
	query := dlq.Query{Filter: dlq.Filter{Type: "sms"}, Limit: 2}
	next := list(t, store, query).Next
	for name, foreign := range map[string]dlq.Query{
		"words":          {Filter: query.Filter, Cursor: "no cursor"},
		"cut":            {Filter: query.Filter, Cursor: next[:8]},
		"another filter": {Filter: dlq.Filter{Type: "push"}, Cursor: next},
		"no filter":      {Cursor: next},
		"another order":  {Filter: query.Filter, Order: dlq.OldestFirst, Cursor: next},
	} {
		if _, err := store.List(context.Background(), foreign); !errors.Is(err, dlq.ErrCursor) {
			t.Errorf("List with a cursor of %s: %v, want ErrCursor", name, err)
		}
	}
	// Another limit is allowed, and a cursor can be used again.
	for range 2 {
		if got := len(list(t, store, dlq.Query{Filter: query.Filter, Limit: 5, Cursor: next}).Entries); got != 4 {
			t.Errorf("the rest has %d entries, want 4", got)
		}
	}
}

func testListEqualTimes(t *testing.T, store dlq.Store) {
	ids := numbered(9)
	for i := range ids {
		put(t, store, deadAt(8-i, start))
	}
	for limit := 1; limit <= 10; limit++ {
		if got := walk(t, store, dlq.Query{Order: dlq.OldestFirst, Limit: limit}); !slices.Equal(got, ids) {
			t.Errorf("entries of the same time, limit %d: %q", limit, got)
		}
	}
	slices.Reverse(ids)
	if got := walk(t, store, dlq.Query{Limit: 2}); !slices.Equal(got, ids) {
		t.Errorf("entries of the same time, newest first: %q", got)
	}
	// A microsecond makes a difference.
	put(t, store, deadAt(8, start.Add(-time.Microsecond)))
	if got := list(t, store, dlq.Query{Order: dlq.OldestFirst, Limit: 1}).Entries[0].ID; got != "entry-0008" {
		t.Errorf("older by a microsecond is %s", got)
	}
}

// testListWhileRowsChange reads page by page while entries are put and deleted.
// Those that stay must be listed once and in order all the same.
func testListWhileRowsChange(t *testing.T, store dlq.Store) {
	for _, order := range []dlq.Order{dlq.NewestFirst, dlq.OldestFirst} {
		// The even ones stay. The odd ones are put and deleted meanwhile.
		var stay []dlq.Entry
		var want []string
		for i := 0; i < 40; i += 2 {
			stay = append(stay, entry(i))
			want = append(want, entry(i).ID)
		}
		put(t, store, stay...)
		if order == dlq.NewestFirst {
			slices.Reverse(want)
		}
		var got []string
		query := dlq.Query{Order: order, Limit: 3}
		for round := 0; ; round++ {
			if round == maxPages {
				t.Fatal("List returns pages without end")
			}
			page := list(t, store, query)
			for i := range page.Entries {
				if id := page.Entries[i].ID; slices.Contains(want, id) {
					got = append(got, id)
				}
			}
			if page.Next == "" {
				break
			}
			query.Cursor = page.Next
			// This may delete the entry at the cursor, if it is an odd one.
			come := []dlq.Entry{deadAt(100+round, start.Add(-time.Hour)), deadAt(200+round, later)}
			var gone []string
			for i := 1; i < 40; i += 2 {
				if (i+round)%4 == 1 {
					come = append(come, entry(i))
				} else {
					gone = append(gone, entry(i).ID)
				}
			}
			put(t, store, come...)
			store.Delete(context.Background(), later, gone...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("order %d: entries that stayed came as %q, want %q", order, got, want)
		}
		if _, err := store.Purge(context.Background(), later.Add(time.Hour), later); err != nil {
			t.Fatalf("Purge: %v", err)
		}
	}
}
