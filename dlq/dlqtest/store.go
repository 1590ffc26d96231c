package dlqtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// TestStore runs the suite of dlq.Store. It calls open for each of its parts.
// open returns an empty Store that nobody else uses. It may call t.Parallel, which
// helps when the store is far away.
func TestStore(t *testing.T, open func(t *testing.T) dlq.Store) {
	for _, part := range []struct {
		name string
		test func(*testing.T, dlq.Store)
	}{
		{"Empty", testEmpty},
		{"PutAndGet", testPutAndGet},
		{"PutReplaces", testPutReplaces},
		{"PutInvalid", testPutInvalid},
		{"Odd", testOdd},
		{"Big", testBig},
		{"Isolation", testIsolation},
		{"Delete", testDelete},
		{"Purge", testPurge},
		{"PurgeInBatches", testPurgeInBatches},
		{"Stats", testStats},
		{"ContextEnded", testContextEnded},

		{"ListOrder", testListOrder},
		{"ListFilters", testListFilters},
		{"ListLimits", testListLimits},
		{"ListCursors", testListCursors},
		{"ListEqualTimes", testListEqualTimes},
		{"ListWhileRowsChange", testListWhileRowsChange},

		{"Claim", testClaim},
		{"ClaimInvalid", testClaimInvalid},
		{"ClaimExpires", testClaimExpires},
		{"ClaimRenewed", testClaimRenewed},
		{"Release", testRelease},
		{"Remove", testRemove},
		{"RemoveAfterAnotherClaim", testRemoveAfterAnotherClaim},
		{"PutWhileClaimed", testPutWhileClaimed},
		{"ClaimGuardsDelete", testClaimGuardsDelete},
		{"ClaimsAtOnce", testClaimsAtOnce},
		{"EverythingAtOnce", testEverythingAtOnce},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, open(t)) })
	}
}

func testEmpty(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	wantKept(t, store)
	put(t, store)
	for method, errs := range map[string][]error{
		"Release": store.Release(ctx, "token"),
		"Remove":  store.Remove(ctx, "token"),
		"Delete":  store.Delete(ctx, later),
	} {
		wantErrors(t, method, errs, nil)
	}
	if all, errs := store.Get(ctx); len(all) != 0 || len(errs) != 0 {
		t.Errorf("Get of no ids is %v, %v", all, errs)
	}
	if all, errs := store.Claim(ctx, dlq.Claim{Token: "token", Now: later, Lease: lease}); len(all) != 0 || len(errs) != 0 {
		t.Errorf("Claim of no ids is %v, %v", all, errs)
	}
	if purged, err := store.Purge(ctx, later, later); purged != 0 || err != nil {
		t.Errorf("Purge is %d, %v", purged, err)
	}
	stats, err := store.Stats(ctx, 10)
	if err != nil || stats.Total != 0 || !stats.Oldest.IsZero() || len(stats.Fingerprints) != 0 {
		t.Errorf("Stats is %+v, %v", stats, err)
	}
}

func testPutAndGet(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entries(3)...)
	ids := []string{"entry-0002", "nobody", "entry-0000", "entry-0002"}
	got, errs := store.Get(ctx, ids...)
	wantErrors(t, "Get", errs, ids, nil, dlq.ErrNotFound, nil, nil)
	if len(got) != len(ids) {
		t.Fatalf("Get of %d ids returned %d entries", len(ids), len(got))
	}
	wantEntry(t, got[0], entry(2))
	wantEntry(t, got[1], dlq.Entry{})
	wantEntry(t, got[2], entry(0))
	wantEntry(t, got[3], entry(2))
	for i, listed := range list(t, store, dlq.Query{Order: dlq.OldestFirst}).Entries {
		wantEntry(t, listed, entry(i))
	}
}

func testPutReplaces(t *testing.T, store dlq.Store) {
	put(t, store, entries(3)...)
	put(t, store, entries(3)...)
	wantKept(t, store, numbered(3)...)

	newer := entry(0)
	newer.DeadAt = later
	newer.Reason = delivery.ReasonPermanent
	newer.Error = "now for good"
	newer.Fingerprint = dlq.Fingerprint(newer.Error)
	newer.Envelope.Type = "push"
	newer.Envelope.Recipient = "somebody else"
	newer.Source = "another"
	newer.Envelope.Body = nil
	newer.Envelope.Headers = nil
	newer.Envelope.History = nil
	put(t, store, newer)
	got, errs := store.Get(context.Background(), newer.ID)
	wantErrors(t, "Get", errs, []string{newer.ID})
	wantEntry(t, got[0], newer)
	wantKept(t, store, "entry-0001", "entry-0002", "entry-0000")

	// Nothing finds it by what it was before.
	for field, filter := range map[string]dlq.Filter{
		"Reason":      {Reason: delivery.ReasonExhausted},
		"Recipient":   {Recipient: "+966500000001"},
		"Type":        {Type: "sms"},
		"Fingerprint": {Fingerprint: entry(0).Fingerprint},
		"Source":      {Source: "sms-consumer"},
		"Until":       {Until: later},
	} {
		for _, id := range walk(t, store, dlq.Query{Filter: filter}) {
			if id == newer.ID {
				t.Errorf("a replaced entry is found by its old %s", field)
			}
		}
	}
	stats, err := store.Stats(context.Background(), 10)
	if err != nil || stats.Total != 3 || stats.ByReason[delivery.ReasonExhausted] != 2 || stats.ByType["push"] != 1 {
		t.Errorf("Stats after a replacement is %+v, %v", stats, err)
	}

	// Of two entries of one call with the same ID, the last one counts.
	first, second := entry(7), entry(7)
	second.Error = "second"
	put(t, store, first, second)
	got, errs = store.Get(context.Background(), first.ID)
	wantErrors(t, "Get", errs, []string{first.ID})
	wantEntry(t, got[0], second)
}

func testPutInvalid(t *testing.T, store dlq.Store) {
	nameless := entry(1)
	nameless.ID = ""
	if err := store.Put(context.Background(), entry(0), nameless); !errors.Is(err, dlq.ErrInvalid) {
		t.Errorf("Put without an ID: %v, want ErrInvalid", err)
	}
	wantKept(t, store)
}

// testOdd puts texts that JSON, SQL or key patterns may get wrong.
func testOdd(t *testing.T, store dlq.Store) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, text := range []string{
		"", " ", "'; DROP TABLE dead_letters; --", `"\`, "{a}:b*?[c]%_", "سلام 📮", "line\nfeed\x00nul\r", "bad \xff utf8", "base64:AAAA",
		string(every), strings.Repeat("long ", 50),
	} {
		odd := entry(0)
		odd.ID = "odd " + text
		odd.Envelope.Message = delivery.Message{
			ID: text, IdempotencyKey: text, Recipient: text, Subject: text, Type: text, ContentType: text,
			Body: every, Headers: map[string]string{"key" + text: text}, Priority: delivery.Low,
		}
		odd.Envelope.History = []delivery.Failure{{Error: text}}
		odd.Raw = every
		odd.Reason = delivery.ReasonMalformed
		odd.Error = text
		odd.Fingerprint = dlq.Fingerprint(text)
		odd.Source = text
		put(t, store, odd)
		got, errs := store.Get(context.Background(), odd.ID)
		wantErrors(t, "Get", errs, []string{odd.ID})
		wantEntry(t, got[0], odd)

		if text == "" {
			continue
		}
		filter := dlq.Filter{Recipient: text, Type: text, Source: text, Fingerprint: odd.Fingerprint}
		if found := walk(t, store, dlq.Query{Filter: filter}); len(found) != 1 || found[0] != odd.ID {
			t.Errorf("List by %q found %q", text, found)
		}
	}
	ids := walk(t, store, dlq.Query{Limit: 2})
	if len(ids) != 11 {
		t.Errorf("a walk over odd ids found %d of 11", len(ids))
	}
	wantErrors(t, "Delete", store.Delete(context.Background(), later, ids...), ids)
	wantKept(t, store)
}

func testBig(t *testing.T, store dlq.Store) {
	big := entry(0)
	big.Envelope.Body = bytes.Repeat([]byte{0, 1, 0xff, 'x'}, 1<<20)
	big.Envelope.Headers = map[string]string{"big": strings.Repeat("h", delivery.MaxHeaderBytes-16)}
	put(t, store, big)
	got, errs := store.Get(context.Background(), big.ID)
	wantErrors(t, "Get", errs, []string{big.ID})
	if !bytes.Equal(got[0].Envelope.Body, big.Envelope.Body) {
		t.Error("a body of 4 MiB came back changed")
	}
	wantEntry(t, got[0], big)

	const many = dlq.MaxLimit + 50
	all := entries(many)
	put(t, store, all...)
	if got := walk(t, store, dlq.Query{Limit: dlq.MaxLimit}); len(got) != many {
		t.Errorf("of %d entries put at once %d are there", many, len(got))
	}
	ids := numbered(many)
	_, errs = store.Get(context.Background(), ids...)
	wantErrors(t, "Get", errs, ids)
	claim(t, store, "token", later, ids...)
	wantErrors(t, "Remove", store.Remove(context.Background(), "token", ids...), ids)
	wantKept(t, store)
}

// testIsolation changes entries after Put, and entries that the store returned.
// The store's own must stay the same.
func testIsolation(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	spoil := func(e *dlq.Entry) {
		e.Envelope.Body[0] = '!'
		e.Envelope.Headers["trace"] = "spoiled"
		e.Facts["queue"] = "spoiled"
		e.Envelope.History[0].Error = "spoiled"
		e.Raw[0] = '!'
	}
	fresh := func() dlq.Entry {
		e := entry(0)
		e.Raw = []byte("raw")
		return e
	}
	given := fresh()
	put(t, store, given)
	spoil(&given)

	ids := []string{given.ID}
	got, errs := store.Get(ctx, ids...)
	wantErrors(t, "Get", errs, ids)
	wantEntry(t, got[0], fresh())
	spoil(&got[0])
	spoil(&list(t, store, dlq.Query{}).Entries[0])
	claimed, errs := store.Claim(ctx, dlq.Claim{Token: "token", Now: later, Lease: lease}, ids...)
	wantErrors(t, "Claim", errs, ids)
	wantEntry(t, claimed[0], fresh())
	spoil(&claimed[0])

	got, errs = store.Get(ctx, ids...)
	wantErrors(t, "Get", errs, ids)
	wantEntry(t, got[0], fresh())
}

func testDelete(t *testing.T, store dlq.Store) {
	put(t, store, entries(4)...)
	ids := []string{"nobody", "entry-0001", "entry-0001", "entry-0003"}
	wantErrors(t, "Delete", store.Delete(context.Background(), later, ids...), ids,
		dlq.ErrNotFound, nil, dlq.ErrNotFound, nil)
	wantKept(t, store, "entry-0000", "entry-0002")

	// What was deleted may be put again, and is not claimed then.
	claim(t, store, "token", later, "entry-0000")
	wantErrors(t, "Remove", store.Remove(context.Background(), "token", "entry-0000"), ids[:1])
	put(t, store, entry(0), entry(1))
	wantKept(t, store, "entry-0000", "entry-0001", "entry-0002")
	claim(t, store, "another", later, "entry-0000", "entry-0001")
}

func testPurge(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	put(t, store, entries(5)...)
	claim(t, store, "token", later, "entry-0001")
	purged, err := store.Purge(ctx, entry(3).DeadAt, later)
	if purged != 2 || err != nil {
		t.Errorf("Purge is %d, %v, want 2", purged, err)
	}
	wantKept(t, store, "entry-0001", "entry-0003", "entry-0004")

	purged, err = store.Purge(ctx, entry(3).DeadAt, later.Add(lease))
	if purged != 1 || err != nil {
		t.Errorf("Purge after the lease is %d, %v, want 1", purged, err)
	}
	wantKept(t, store, "entry-0003", "entry-0004")
	stats, err := store.Stats(ctx, 10)
	if err != nil || stats.Total != 2 || !stats.Oldest.Equal(entry(3).DeadAt) || stats.ByType["sms"] != 2 {
		t.Errorf("Stats after a purge is %+v, %v", stats, err)
	}
}

// testPurgeInBatches purges more than any batch has, with claimed entries in
// between, and ends its context in the middle.
func testPurgeInBatches(t *testing.T, store dlq.Store) {
	const many = 2500
	all := entries(many)
	for i := range all {
		all[i].DeadAt = start.Add(time.Duration(i/50) * time.Second) // many have the same
	}
	put(t, store, all...)
	claim(t, store, "token", later, "entry-0000", "entry-1000", "entry-2499")
	short, cancel := context.WithCancel(context.Background())
	go func() {
		for count := many; count == many; {
			var err error
			if count, err = store.Count(context.Background(), dlq.Filter{}); err != nil {
				break
			}
		}
		cancel()
	}()
	first, err := store.Purge(short, later, later)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Purge whose context ends: %v, want context.Canceled", err)
	}
	<-short.Done()
	count, err := store.Count(context.Background(), dlq.Filter{})
	if err != nil || count > many-first {
		t.Errorf("after a purge of %d there are %d, %v", first, count, err)
	}
	// What was under way when the context ended may have been carried out since.
	rest, err := store.Purge(context.Background(), later, later)
	if rest > count-3 || err != nil {
		t.Errorf("Purge of the rest is %d, %v, want at most %d", rest, err, count-3)
	}
	wantKept(t, store, "entry-0000", "entry-1000", "entry-2499")
}

func testStats(t *testing.T, store dlq.Store) {
	ctx := context.Background()
	all := entries(12)
	for i := range all {
		group := []string{"a", "a", "a", "b", "b", "c"}[i%6]
		all[i].Error, all[i].Fingerprint = "error of "+group, "fingerprint-"+group
		all[i].Envelope.Type = []string{"sms", "push", ""}[i%3]
		if i < 4 {
			all[i].Reason = delivery.ReasonExpired
		}
	}
	put(t, store, all...)
	check := func(top int, want ...dlq.FingerprintCount) {
		t.Helper()
		stats, err := store.Stats(ctx, top)
		if err != nil {
			t.Fatalf("Stats: %v", err)
		}
		if stats.Total != 12 || !stats.Oldest.Equal(start) {
			t.Errorf("Stats has Total %d and Oldest %s, want 12 and %s", stats.Total, stats.Oldest, start)
		}
		if got := fmt.Sprint(stats.ByReason); got != "map[exhausted:8 expired:4]" {
			t.Errorf("ByReason is %s", got)
		}
		if got := fmt.Sprint(stats.ByType); got != "map[:4 push:4 sms:4]" {
			t.Errorf("ByType is %s", got)
		}
		if got := fmt.Sprint(stats.Fingerprints); got != fmt.Sprint(want) {
			t.Errorf("Fingerprints of top %d is %s, want %v", top, got, want)
		}
	}
	a := dlq.FingerprintCount{Fingerprint: "fingerprint-a", Count: 6, Example: "error of a"}
	b := dlq.FingerprintCount{Fingerprint: "fingerprint-b", Count: 4, Example: "error of b"}
	c := dlq.FingerprintCount{Fingerprint: "fingerprint-c", Count: 2, Example: "error of c"}
	check(0)
	check(2, a, b)
	check(dlq.MaxTop, a, b, c)
	for _, top := range []int{-1, dlq.MaxTop + 1, math.MaxInt} {
		if _, err := store.Stats(ctx, top); !errors.Is(err, dlq.ErrQuery) {
			t.Errorf("Stats with top %d: %v, want ErrQuery", top, err)
		}
	}

	// Of equal counts the smaller fingerprint is first.
	wantErrors(t, "Delete", store.Delete(ctx, later, "entry-0000", "entry-0001"), numbered(2))
	stats, err := store.Stats(ctx, 1)
	if err != nil || fmt.Sprint(stats.Fingerprints) != "[{fingerprint-a 4 error of a}]" || !stats.Oldest.Equal(entry(2).DeadAt) {
		t.Errorf("Stats after a deletion is %+v, %v", stats, err)
	}
}

func testContextEnded(t *testing.T, store dlq.Store) {
	put(t, store, entry(0))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	ids := numbered(1)
	errs := make([]error, 0, 10)
	errs = append(errs, store.Put(ended, entry(1)))
	_, got := store.Get(ended, ids...)
	errs = append(errs, got...)
	_, err := store.List(ended, dlq.Query{})
	errs = append(errs, err)
	_, err = store.Count(ended, dlq.Filter{})
	errs = append(errs, err)
	_, err = store.Stats(ended, 1)
	errs = append(errs, err)
	_, got = store.Claim(ended, dlq.Claim{Token: "token", Now: later, Lease: lease}, ids...)
	errs = append(errs, got...)
	errs = append(errs, store.Release(ended, "token", ids...)...)
	errs = append(errs, store.Remove(ended, "token", ids...)...)
	errs = append(errs, store.Delete(ended, later, ids...)...)
	_, err = store.Purge(ended, later, later)
	errs = append(errs, err)
	if len(errs) != 10 {
		t.Fatalf("10 calls after the context's end returned %d errors", len(errs))
	}
	for i, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d after the context's end: %v, want context.Canceled", i, err)
		}
	}
	wantKept(t, store, ids...)
	claim(t, store, "another", later, ids...)
}

// deadAt returns entry i with another time.
func deadAt(i int, at time.Time) dlq.Entry {
	e := entry(i)
	e.DeadAt = at
	return e
}
