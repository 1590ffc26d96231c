package deliverytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// listOrder lists in both orders, with pages of several sizes.
func listOrder(t *storeSubtest) {
	records := plainRecords(10)
	// They are saved in another order than that of their times.
	t.save(records[5:]...)
	t.save(records[:5]...)
	oldest := idsOf(records)
	newest := slices.Clone(oldest)
	slices.Reverse(newest)
	for _, limit := range []int{1, 3, 5, 10, 11, 0} {
		t.checkList(fmt.Sprintf("oldest first by %d", limit), delivery.RecordQuery{Order: delivery.OldestFirst, Limit: limit}, oldest...)
		t.checkList(fmt.Sprintf("newest first by %d", limit), delivery.RecordQuery{Limit: limit}, newest...)
	}
	if page := t.list(delivery.RecordQuery{Limit: 10}); page.Next != "" {
		t.Errorf("List: the last page, which is full, has a Next")
	}
	if page := t.list(delivery.RecordQuery{Limit: 9}); page.Next == "" || len(page.Records) != 9 {
		t.Errorf("List: a page of 9 out of 10 has %d records and the Next %q", len(page.Records), page.Next)
	}
}

// listEqualTimes lists records of which only the IDs differ: their order is
// that of bytes.
func listEqualTimes(t *storeSubtest) {
	ids := []string{"b", "a", "B", "A", "aa", "a b", "a-b", "ab", "10", "9", "é", "e", "z", "Z", "\xff", "\x00", "a\x00", "ÿ", "_", "~"}
	records := plainRecords(len(ids))
	for i, id := range ids {
		records[i].ID = id
		records[i].CreatedAt = storeStart.Add(time.Duration(i%2) * time.Microsecond)
	}
	t.save(records...)
	slices.SortFunc(records, func(a, b delivery.Record) int {
		return delivery.PositionOf(&a).Compare(delivery.PositionOf(&b))
	})
	oldest := idsOf(records)
	newest := slices.Clone(oldest)
	slices.Reverse(newest)
	for _, limit := range []int{1, 2, 7, 50} {
		t.checkList("oldest first", delivery.RecordQuery{Order: delivery.OldestFirst, Limit: limit}, oldest...)
		t.checkList("newest first", delivery.RecordQuery{Limit: limit}, newest...)
	}
}

// listFilters compares lists with RecordFilter.Match, for chosen and random
// filters.
func listFilters(t *storeSubtest) {
	statuses, priorities := delivery.Statuses(), delivery.Priorities()
	records := plainRecords(96)
	for i := range records {
		record := &records[i]
		record.CreatedAt = after(i / 3 * 10)
		record.Status, record.Priority = statuses[i%len(statuses)], priorities[i/8%len(priorities)]
		record.Recipient, record.Type = fmt.Sprint("recipient ", i%5), fmt.Sprint("type ", i%7)
		if i%2 == 0 {
			record.IdempotencyKey = fmt.Sprint("key ", i%6)
		}
	}
	records[2].Type, records[3].Type = "", ""
	// A message with an idempotency key is not found by its ID as the key.
	records[4].IdempotencyKey = records[5].ID
	t.save(records...)
	all := delivery.RecordFilter{
		Statuses: []delivery.Status{delivery.StatusQueued, delivery.StatusFailed}, Recipient: "recipient 1", Type: "type 2",
		IdempotencyKey: "key 4", Priorities: []delivery.Priority{delivery.Low, delivery.Urgent}, Since: after(20), Until: after(300),
	}
	filters := []delivery.RecordFilter{
		{},
		{Statuses: all.Statuses}, {Statuses: all.Statuses[:1]}, {Statuses: statuses[:]}, {Statuses: []delivery.Status{delivery.StatusRead, delivery.StatusRead}},
		{Recipient: all.Recipient}, {Recipient: "recipient"}, {Recipient: "RECIPIENT 1"},
		{Type: all.Type}, {Type: "nothing"},
		{IdempotencyKey: all.IdempotencyKey}, {IdempotencyKey: records[5].ID}, {IdempotencyKey: records[4].ID}, {IdempotencyKey: records[7].ID},
		{Priorities: all.Priorities}, {Priorities: []delivery.Priority{delivery.Normal}}, {Priorities: priorities[:]},
		{Since: all.Since}, {Until: all.Until}, {Since: after(100), Until: after(110)}, {Since: after(100), Until: after(100).Add(time.Microsecond)},
		{Since: after(100).Add(time.Microsecond), Until: after(110)}, {Since: after(10_000)}, {Until: after(-10_000)},
		{Since: after(100).In(time.FixedZone("elsewhere", 3600))},
		all,
	}
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // a fixed seed
	for i := range len(filters) + 40 {
		filter := randomFilter(random, all, records)
		if i < len(filters) {
			filter = filters[i]
		}
		var want []string
		for i := range records {
			if filter.Match(&records[i]) {
				want = append(want, records[i].ID)
			}
		}
		// The records of one time are in the order of their IDs already.
		t.checkList(fmt.Sprintf("oldest first of %+v", filter), delivery.RecordQuery{RecordFilter: filter, Order: delivery.OldestFirst, Limit: 5}, want...)
		slices.Reverse(want)
		t.checkList(fmt.Sprintf("newest first of %+v", filter), delivery.RecordQuery{RecordFilter: filter}, want...)
	}
}

// randomFilter has some of the fields of a random record, and some of the times
// of all.
func randomFilter(random *rand.Rand, all delivery.RecordFilter, records []delivery.Record) delivery.RecordFilter {
	record := &records[random.IntN(len(records))]
	filter := delivery.RecordFilter{
		Statuses: []delivery.Status{record.Status, delivery.StatusRead}, Recipient: record.Recipient, Type: record.Type,
		IdempotencyKey: record.Key(), Priorities: []delivery.Priority{record.Priority}, Since: all.Since, Until: all.Until,
	}
	if random.IntN(2) == 0 {
		filter.Statuses = nil
	}
	if random.IntN(2) == 0 {
		filter.Recipient = ""
	}
	if random.IntN(2) == 0 {
		filter.Type = ""
	}
	if random.IntN(2) == 0 {
		filter.IdempotencyKey = ""
	}
	if random.IntN(2) == 0 {
		filter.Priorities = nil
	}
	if random.IntN(2) == 0 {
		filter.Since = time.Time{}
	}
	if random.IntN(2) == 0 {
		filter.Until = time.Time{}
	}
	return filter
}

// listLimits lists with limits inside and outside of the bounds.
func listLimits(t *storeSubtest) {
	records := plainRecords(delivery.MaxRecordLimit + 5)
	t.save(records...)
	for limit, want := range map[int]int{
		0: delivery.DefaultRecordLimit, 1: 1, 999: 999, delivery.MaxRecordLimit: delivery.MaxRecordLimit,
	} {
		page := t.list(delivery.RecordQuery{Limit: limit})
		if len(page.Records) != want || page.Next == "" {
			t.Errorf("List with Limit %d: %d records and the Next %q, want %d and more", limit, len(page.Records), page.Next, want)
		}
	}
	t.checkList("by the largest pages", delivery.RecordQuery{Order: delivery.OldestFirst, Limit: delivery.MaxRecordLimit}, idsOf(records)...)
	for what, query := range map[string]delivery.RecordQuery{
		"a negative Limit":    {Limit: -1},
		"too high a Limit":    {Limit: delivery.MaxRecordLimit + 1},
		"an unknown Order":    {Order: delivery.OldestFirst + 1},
		"an unknown Status":   {RecordFilter: delivery.RecordFilter{Statuses: []delivery.Status{"PENDING"}}},
		"an unknown Priority": {RecordFilter: delivery.RecordFilter{Priorities: []delivery.Priority{delivery.Urgent + 1}}},
		"no time in between":  {RecordFilter: delivery.RecordFilter{Since: after(1), Until: after(1)}},
	} {
		if _, err := t.store.List(t.Context(), query); !errors.Is(err, delivery.ErrQuery) {
			t.Errorf("List with %s: %v, want ErrQuery", what, err)
		}
	}
}

// listCursors lists with cursors that don't fit the query, and repeats a page.
func listCursors(t *storeSubtest) {
	t.save(plainRecords(10)...)
	query := delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Recipient: "recipient"}, Limit: 3}
	cursor := t.list(query).Next
	if cursor == "" {
		t.Fatalf("List of 3 out of 10: no Next")
	}
	other, order := query, query
	other.Recipient, order.Order = "somebody else", delivery.OldestFirst
	for what, query := range map[string]delivery.RecordQuery{
		"with another filter": other, "with another order": order,
		"that is cut": query, "that is longer": query, "that is changed": query, "of another kind": query, "of a line more": query,
	} {
		query.Cursor = cursor
		switch what {
		case "that is cut":
			query.Cursor = cursor[:8]
		case "that is longer":
			query.Cursor += "!"
		case "that is changed":
			query.Cursor = strings.Repeat("A", len(cursor))
		case "of another kind":
			query.Cursor = "10"
		case "of a line more":
			query.Cursor += "\n"
		}
		if _, err := t.store.List(t.Context(), query); !errors.Is(err, delivery.ErrCursor) {
			t.Errorf("List with a cursor %s: %v, want ErrCursor", what, err)
		}
	}
	// The limit may change from page to page, and a page may be read again.
	query.Cursor, query.Limit = cursor, 2
	for range 2 {
		if got := idsOf(t.list(query).Records); !slices.Equal(got, []string{"record-0006", "record-0005"}) {
			t.Errorf("List of the page after 3: %q", got)
		}
	}
	// The last record of a page may be gone when the next page is read.
	update := delivery.Update{ID: "record-0007", Status: delivery.StatusCancelled, At: after(50)}
	t.update(update)
	t.checkPurge(after(60), 10, 1)
	if got := idsOf(t.list(query).Records); !slices.Equal(got, []string{"record-0006", "record-0005"}) {
		t.Errorf("List of the page after one that is gone: %q", got)
	}
}

// listWhileRecordsChange saves, updates, purges and claims between the pages. A
// record that stays is listed once.
func listWhileRecordsChange(t *storeSubtest) {
	for round, order := range []delivery.RecordOrder{delivery.NewestFirst, delivery.OldestFirst} {
		const count = 60
		base := 1000 * round
		stays, goes := map[string]int{}, []string(nil)
		for i := range count {
			record := dueRecord(base+i*2, delivery.StatusPending, after(base))
			record.Recipient = fmt.Sprint("round ", round)
			if i%4 == 0 {
				goes = append(goes, record.ID)
			} else {
				stays[record.ID] = 0
			}
			t.save(record)
		}
		pages, fresh := 0, 0
		seen := t.listAll(delivery.RecordQuery{
			RecordFilter: delivery.RecordFilter{Recipient: fmt.Sprint("round ", round)}, Order: order, Limit: 7,
		}, func() {
			pages++
			// One lies before the pages, one between them, and one after them.
			for _, at := range []int{base - 100 - pages, base + pages*6 + 1, base + 500 + pages} {
				record := plainRecord(at)
				record.ID = fmt.Sprintf("fresh-%d-%d", round, fresh)
				record.Recipient = fmt.Sprint("round ", round)
				fresh++
				t.save(record)
			}
			if len(goes) > 0 {
				t.update(delivery.Update{ID: goes[len(goes)-1], Status: delivery.StatusDelivered, At: after(5000)})
				t.checkPurge(after(5001), 1, 1)
				goes = goes[:len(goes)-1]
			}
			for id := range stays {
				t.update(delivery.Update{ID: id, Status: delivery.StatusQueued, At: after(4000)})
				break
			}
			t.claim(delivery.StatusPending, "w", after(base), 3)
		})
		for i, record := range seen {
			if _, ok := stays[record.ID]; ok {
				stays[record.ID]++
			}
			if i == 0 {
				continue
			}
			compare := delivery.PositionOf(&seen[i-1]).Compare(delivery.PositionOf(&record))
			if (compare < 0) != (order == delivery.OldestFirst) || compare == 0 {
				t.Errorf("List: %s comes after %s", record.ID, seen[i-1].ID)
			}
		}
		for id, times := range stays {
			if times != 1 {
				t.Errorf("List: %s was seen %d times, want once", id, times)
			}
		}
	}
}
