package deliverytest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// keepsEveryRecordField saves records with a value in every field, with few,
// and with the longest allowed.
func keepsEveryRecordField(t *storeSubtest) {
	minimal := delivery.Record{Message: delivery.Message{ID: "minimal"}, Progress: delivery.Progress{Queue: storeQueue, Status: delivery.StatusPending}}
	manyHeaders := plainRecord(1)
	manyHeaders.Headers = map[string]string{}
	for i := range 200 {
		manyHeaders.Headers[fmt.Sprintf("header-%03d", i)] = strings.Repeat("v", i)
	}
	longest := fullRecord(2)
	longest.ID, longest.Queue = strings.Repeat("i", delivery.MaxIDBytes), strings.Repeat("q", delivery.MaxIDBytes)
	longest.Type, longest.ContentType = strings.Repeat("t", delivery.MaxIDBytes), strings.Repeat("c", delivery.MaxIDBytes)
	longest.IdempotencyKey = strings.Repeat("k", delivery.MaxAttributeBytes)
	longest.Recipient, longest.Subject = strings.Repeat("r", delivery.MaxAttributeBytes), strings.Repeat("s", delivery.MaxAttributeBytes)
	longest.Headers = map[string]string{strings.Repeat("h", delivery.MaxIDBytes): strings.Repeat("v", delivery.MaxHeaderBytes-delivery.MaxIDBytes)}
	statuses, priorities := delivery.Statuses(), delivery.Priorities()
	each := make([]delivery.Record, len(statuses)*len(priorities))
	for i := range each {
		each[i] = fullRecord(3 + i)
		each[i].Status, each[i].Priority = statuses[i%len(statuses)], priorities[i/len(statuses)]
	}
	want := append([]delivery.Record{minimal, manyHeaders, longest}, each...)
	t.save(want...)
	t.checkRecords(want...)

	found := map[string]delivery.Record{}
	for _, record := range t.listAll(delivery.RecordQuery{Limit: 10}, nil) {
		found[record.ID] = record
	}
	for _, record := range want {
		got, ok := found[record.ID]
		if !ok {
			t.Errorf("List: record %.20q is missing", record.ID)
			continue
		}
		record.Body = nil
		if err := recordDifferences(&record, &got); err != nil {
			t.Errorf("List: record %.20q: %v", record.ID, err)
		}
	}
	t.checkRecords(want...)
}

// oddTexts are texts that SQL, JSON, patterns and collations may misread. Some
// of them are equal under a collation that is not that of bytes.
func oddTexts() []string {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return []string{
		" ", "a", "A", "a ", " a", "a\x00", "a\x00b", "á", "a\u0301", "'; DROP TABLE messages; --", `"\`, `\x41`, "{a}:b*?[c]%_", "%", "_",
		"null", "0", "سلام 📮", "line\nfeed\x00nul\r", "\x00", "bad \xff utf8", "\ufffd", "\U0010ffff", "$1 ?1 :a @b", string(every[:128]), string(every[128:]), strings.Repeat("long ", 50),
	}
}

// keepsOddText saves, finds and updates records with such texts in every field.
func keepsOddText(t *storeSubtest) {
	texts := oddTexts()
	records := make([]delivery.Record, len(texts))
	for i, text := range texts {
		record := plainRecord(i)
		record.Message = delivery.Message{
			ID: text, IdempotencyKey: text, Recipient: text, Subject: text, Type: text, ContentType: text,
			Body: []byte(text), Headers: map[string]string{"key" + text: text}, CreatedAt: after(i),
		}
		record.ClaimedBy, record.DeadLetterID = text, text
		record.History = []delivery.Failure{{At: after(i), Error: text}}
		records[i] = record
	}
	t.save(records...)
	t.checkRecords(records...)
	for i, text := range texts {
		for field, filter := range map[string]delivery.RecordFilter{
			"recipient": {Recipient: text}, "type": {Type: text}, "idempotency key": {IdempotencyKey: text},
		} {
			t.checkList(fmt.Sprintf("of the %s %.40q", field, text), delivery.RecordQuery{RecordFilter: filter}, records[i].ID)
		}
		records[i].DueAt = after(i)
		t.renew(text, after(i))
	}
	got := t.update(delivery.Update{
		ID: records[0].ID, Status: delivery.StatusFailed, At: after(9), OnlyIfClaimedBy: records[0].ClaimedBy, ClaimedBy: texts[1],
		DeadLetterID: texts[2], Failure: &delivery.Failure{At: after(9), Error: texts[3]},
	})[0]
	if got.ClaimedBy != texts[1] || got.DeadLetterID != texts[2] || got.FailureReason() != texts[3] {
		t.Errorf("Update: texts are %q, %q and %q, want %q", got.ClaimedBy, got.DeadLetterID, got.FailureReason(), texts[1:4])
	}
	if ids := idsOf(t.listAll(delivery.RecordQuery{Limit: 3, Order: delivery.OldestFirst}, nil)); !slices.Equal(ids, idsOf(records)) {
		t.Errorf("List by pages: %q", ids)
	}
	for i := range records {
		records[i].ClaimedBy = "\x00\xff"
	}
	claimed := t.claim(delivery.StatusPending, "\x00\xff", after(1000), len(records))
	if len(claimed) != len(records)-1 {
		t.Errorf("Claim: %d records, want %d", len(claimed), len(records)-1)
	}
	for _, record := range claimed {
		if record.ClaimedBy != "\x00\xff" {
			t.Errorf("Claim: ClaimedBy is %q", record.ClaimedBy)
		}
	}
}

// keepsRecordBodies saves bodies of several sizes. List leaves bodies out.
func keepsRecordBodies(t *storeSubtest) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	records := plainRecords(5)
	for i, body := range [][]byte{nil, {}, {0}, every, bytes.Repeat([]byte{0, 1, 0xff, 'x'}, 1<<20)} {
		records[i].Body = body
		records[i].DueAt = after(i)
	}
	records[4].Headers = map[string]string{"big": strings.Repeat("h", delivery.MaxHeaderBytes-3)}
	t.save(records...)
	t.checkRecords(records...)
	for i, got := range t.claim(delivery.StatusPending, "w", after(10), 10) {
		if !bytes.Equal(got.Body, records[i].Body) {
			t.Errorf("Claim: the body of %d bytes is not the one of %d bytes that was saved", len(got.Body), len(records[i].Body))
		}
	}
	for _, order := range []delivery.RecordOrder{delivery.NewestFirst, delivery.OldestFirst} {
		for _, got := range t.listAll(delivery.RecordQuery{Order: order, Limit: 2}, nil) {
			if len(got.Body) > 0 {
				t.Errorf("List: a record has a body of %d bytes, want none", len(got.Body))
			}
		}
	}
}

// keepsTimes checks that times are cut to microseconds, and returned in UTC.
func keepsTimes(t *storeSubtest) {
	elsewhere := time.FixedZone("elsewhere", 5*3600)
	fine := func(at time.Time) time.Time { return at.Add(999 * time.Nanosecond).In(elsewhere) }
	want := fullRecord(0)
	given := want
	for _, at := range []*time.Time{
		&given.CreatedAt, &given.NotBefore, &given.ExpiresAt, &given.NextRetryAt, &given.LastRetryAt, &given.SentAt,
		&given.DeliveredAt, &given.ReadAt, &given.AckDeadline, &given.DueAt, &given.UpdatedAt,
	} {
		*at = fine(*at)
	}
	given.History = slices.Clone(want.History)
	for i := range given.History {
		given.History[i].At = fine(want.History[i].At)
	}
	far := plainRecord(1)
	far.CreatedAt = time.Date(1700, 1, 2, 3, 4, 5, 6000, time.UTC)
	far.NotBefore = time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	far.ExpiresAt = time.Date(2262, 1, 2, 3, 4, 5, 6000, time.UTC)
	farGiven := far
	farGiven.CreatedAt, farGiven.NotBefore, farGiven.ExpiresAt = fine(far.CreatedAt), fine(far.NotBefore), fine(far.ExpiresAt)
	none := delivery.Record{Message: delivery.Message{ID: "no times"}, Progress: delivery.Progress{Queue: storeQueue, Status: delivery.StatusQueued}}
	t.save(given, farGiven, none)
	t.checkRecords(want, far, none)
	t.checkList("of a time", delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Since: far.CreatedAt, Until: far.CreatedAt.Add(time.Microsecond)}}, far.ID)
	t.checkList("in order", delivery.RecordQuery{Order: delivery.OldestFirst, Limit: 1}, none.ID, far.ID, want.ID)

	update := delivery.Update{
		ID: far.ID, Status: delivery.StatusRetrying, RetryCount: 1, At: after(5), DueAt: after(6), ClaimedBy: "w",
		Failure: &delivery.Failure{At: after(4), Error: "no"},
	}
	if err := far.Apply(update); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	update.At, update.DueAt, update.Failure = fine(update.At), fine(update.DueAt), &delivery.Failure{At: fine(update.Failure.At), Error: "no"}
	if err := progressDifferences(&far.Progress, &t.update(update)[0]); err != nil {
		t.Errorf("Update: %v", err)
	}
	t.checkRecords(far)
	t.checkNextDue(far.DueAt, delivery.StatusRetrying)
	claim := claimOf(delivery.StatusRetrying, "w", fine(far.DueAt), 1)
	claim.Lease = time.Second
	claimed, err := t.store.Claim(t.Context(), claim)
	if err != nil || len(claimed) != 1 || !claimed[0].DueAt.Equal(far.DueAt.Add(time.Second)) {
		t.Fatalf("Claim: %v, %v", claimed, err)
	}
	far.DueAt = claimed[0].DueAt
	t.checkRecords(far, none)
}

// isolatesCallers changes the records that were given to the store, and those
// that it returned.
func isolatesCallers(t *storeSubtest) {
	spoil := func(record *delivery.Record) {
		for i := range record.Body {
			record.Body[i] = '!'
		}
		for key := range record.Headers {
			record.Headers[key] = "spoiled"
		}
		record.Headers["new"] = "header"
		for i := range record.History {
			record.History[i].Error = "spoiled"
		}
	}
	want := fullRecord(0)
	given := []delivery.Record{fullRecord(0)}
	t.save(given...)
	spoil(&given[0])
	given[0] = delivery.Record{}
	t.checkRecords(want)
	spoil(&t.get(want.ID)[0])
	listed := t.list(delivery.RecordQuery{}).Records
	if len(listed) != 1 {
		t.Fatalf("List: %d records, want 1", len(listed))
	}
	spoil(&listed[0])
	claimed := t.claim(delivery.StatusRetrying, "w", want.DueAt, 1)
	if len(claimed) != 1 {
		t.Fatalf("Claim: %d records, want 1", len(claimed))
	}
	spoil(&claimed[0])
	want.ClaimedBy, want.DueAt = "w", want.DueAt.Add(storeLease)
	t.checkRecords(want)

	failure := &delivery.Failure{At: after(1), Attempt: 12, Error: "kept"}
	update := delivery.Update{ID: want.ID, Generation: 3, RetryCount: 13, Status: delivery.StatusQueued, At: after(1), Failure: failure}
	if err := want.Apply(update); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	progress := t.update(update)
	failure.Error = "spoiled"
	for i := range progress[0].History {
		progress[0].History[i].Error = "spoiled"
	}
	t.checkRecords(want)
}
