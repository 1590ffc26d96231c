package deliverytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

func emptyStore(r *storeRig) {
	ctx := r.Context()
	r.save()
	r.update()
	r.get()
	r.gone("nobody", "", "nobody")
	progress, errs := r.store.Update(ctx, delivery.Update{ID: "nobody", Status: delivery.StatusQueued, At: storeStart})
	r.errors("Update", errs, delivery.ErrNotFound)
	if len(progress) != 1 || progressDifferences(&delivery.Progress{}, &progress[0]) != nil {
		r.Errorf("Update of nobody: progress is %+v, want one that is zero", progress)
	}
	r.lists("of nothing", delivery.RecordQuery{})
	r.nextDue(time.Time{})
	statuses := delivery.Statuses()
	r.nextDue(time.Time{}, statuses[:]...)
	r.renew("nobody", storeStart, 0)
	r.purge(after(1000), 100, 0)
	for _, status := range statuses {
		r.claims(status, "nobody", after(1000), 10)
	}
	r.counts(delivery.RecordStats{})
}

func recordFields(r *storeRig) {
	minimal := delivery.Record{Message: delivery.Message{ID: "minimal"}, Progress: delivery.Progress{Status: delivery.StatusPending}}
	manyHeaders := plainRecord(1)
	manyHeaders.Headers = map[string]string{}
	for i := range 200 {
		manyHeaders.Headers[fmt.Sprintf("header-%03d", i)] = strings.Repeat("v", i)
	}
	longest := fullRecord(2)
	longest.ID = strings.Repeat("i", delivery.MaxIDBytes)
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
	r.save(want...)
	r.kept(want...)

	found := map[string]delivery.Record{}
	for _, record := range r.walk(delivery.RecordQuery{Limit: 10}, nil) {
		found[record.ID] = record
	}
	for _, record := range want {
		got, ok := found[record.ID]
		if !ok {
			r.Errorf("List: record %.20q is missing", record.ID)
			continue
		}
		record.Body = nil
		if err := recordDifferences(&record, &got); err != nil {
			r.Errorf("List: record %.20q: %v", record.ID, err)
		}
	}
	r.kept(want...)
}

// oddTexts are what SQL, JSON, patterns and collations may stumble over. Some
// are the same to those who look less closely.
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

func oddText(r *storeRig) {
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
	r.save(records...)
	r.kept(records...)
	for i, text := range texts {
		for field, filter := range map[string]delivery.RecordFilter{
			"recipient": {Recipient: text}, "type": {Type: text}, "idempotency key": {IdempotencyKey: text},
		} {
			r.lists(fmt.Sprintf("of the %s %.40q", field, text), delivery.RecordQuery{RecordFilter: filter}, records[i].ID)
		}
		records[i].DueAt = after(i)
		r.renew(text, after(i), 1)
	}
	got := r.update(delivery.Update{
		ID: records[0].ID, Status: delivery.StatusFailed, At: after(9), OnlyIfClaimedBy: records[0].ClaimedBy, ClaimedBy: texts[1],
		DeadLetterID: texts[2], Failure: &delivery.Failure{At: after(9), Error: texts[3]},
	})[0]
	if got.ClaimedBy != texts[1] || got.DeadLetterID != texts[2] || got.FailureReason() != texts[3] {
		r.Errorf("Update: texts are %q, %q and %q, want %q", got.ClaimedBy, got.DeadLetterID, got.FailureReason(), texts[1:4])
	}
	if ids := idsOf(r.walk(delivery.RecordQuery{Limit: 3, Order: delivery.OldestFirst}, nil)); !slices.Equal(ids, idsOf(records)) {
		r.Errorf("List by pages: %q", ids)
	}
	for i := range records {
		records[i].ClaimedBy = "\x00\xff"
	}
	claimed := r.claim(delivery.StatusPending, "\x00\xff", after(1000), len(records))
	if len(claimed) != len(records)-1 {
		r.Errorf("Claim: %d records, want %d", len(claimed), len(records)-1)
	}
	for _, record := range claimed {
		if record.ClaimedBy != "\x00\xff" {
			r.Errorf("Claim: ClaimedBy is %q", record.ClaimedBy)
		}
	}
}

func recordBodies(r *storeRig) {
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
	r.save(records...)
	r.kept(records...)
	for i, got := range r.claim(delivery.StatusPending, "w", after(10), 10) {
		if !bytes.Equal(got.Body, records[i].Body) {
			r.Errorf("Claim: the body of %d bytes is not the one of %d bytes that was saved", len(got.Body), len(records[i].Body))
		}
	}
	for _, order := range []delivery.RecordOrder{delivery.NewestFirst, delivery.OldestFirst} {
		for _, got := range r.walk(delivery.RecordQuery{Order: order, Limit: 2}, nil) {
			if len(got.Body) > 0 {
				r.Errorf("List: a record has a body of %d bytes, want none", len(got.Body))
			}
		}
	}
}

// recordTimes tells that times are cut to microseconds, and come as UTC.
func recordTimes(r *storeRig) {
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
	none := delivery.Record{Message: delivery.Message{ID: "no times"}, Progress: delivery.Progress{Status: delivery.StatusQueued}}
	r.save(given, farGiven, none)
	r.kept(want, far, none)
	r.lists("of a time", delivery.RecordQuery{RecordFilter: delivery.RecordFilter{Since: far.CreatedAt, Until: far.CreatedAt.Add(time.Microsecond)}}, far.ID)
	r.lists("in order", delivery.RecordQuery{Order: delivery.OldestFirst, Limit: 1}, none.ID, far.ID, want.ID)

	update := delivery.Update{
		ID: far.ID, Status: delivery.StatusRetrying, RetryCount: 1, At: after(5), DueAt: after(6), ClaimedBy: "w",
		Failure: &delivery.Failure{At: after(4), Error: "no"},
	}
	if err := far.Apply(update); err != nil {
		r.Fatalf("Apply: %v", err)
	}
	update.At, update.DueAt, update.Failure = fine(update.At), fine(update.DueAt), &delivery.Failure{At: fine(update.Failure.At), Error: "no"}
	if err := progressDifferences(&far.Progress, &r.update(update)[0]); err != nil {
		r.Errorf("Update: %v", err)
	}
	r.kept(far)
	r.nextDue(far.DueAt, delivery.StatusRetrying)
	claim := claimOf(delivery.StatusRetrying, "w", fine(far.DueAt), 1)
	claim.Lease = time.Second
	claimed, err := r.store.Claim(r.Context(), claim)
	if err != nil || len(claimed) != 1 || !claimed[0].DueAt.Equal(far.DueAt.Add(time.Second)) {
		r.Fatalf("Claim: %v, %v", claimed, err)
	}
	far.DueAt = claimed[0].DueAt
	r.kept(far, none)
}

// isolatesCallers changes what was given and what was got.
func isolatesCallers(r *storeRig) {
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
	r.save(given...)
	spoil(&given[0])
	given[0] = delivery.Record{}
	r.kept(want)
	spoil(&r.get(want.ID)[0])
	listed := r.list(delivery.RecordQuery{}).Records
	if len(listed) != 1 {
		r.Fatalf("List: %d records, want 1", len(listed))
	}
	spoil(&listed[0])
	claimed := r.claim(delivery.StatusRetrying, "w", want.DueAt, 1)
	if len(claimed) != 1 {
		r.Fatalf("Claim: %d records, want 1", len(claimed))
	}
	spoil(&claimed[0])
	want.ClaimedBy, want.DueAt = "w", want.DueAt.Add(storeLease)
	r.kept(want)

	failure := &delivery.Failure{At: after(1), Attempt: 12, Error: "kept"}
	update := delivery.Update{ID: want.ID, Generation: 3, RetryCount: 13, Status: delivery.StatusQueued, At: after(1), Failure: failure}
	if err := want.Apply(update); err != nil {
		r.Fatalf("Apply: %v", err)
	}
	progress := r.update(update)
	failure.Error = "spoiled"
	for i := range progress[0].History {
		progress[0].History[i].Error = "spoiled"
	}
	r.kept(want)
}

func savesOnce(r *storeRig) {
	first := fullRecord(0)
	r.save(first)
	again := plainRecord(0)
	again.Body = []byte("another")
	r.errors("Save", r.store.Save(r.Context(), again), delivery.ErrExists)
	r.kept(first)
	update := delivery.Update{ID: first.ID, Status: delivery.StatusQueued, Generation: 3, RetryCount: 12, At: after(5)}
	if err := first.Apply(update); err != nil {
		r.Fatalf("Apply: %v", err)
	}
	r.update(update)
	r.errors("Save", r.store.Save(r.Context(), fullRecord(0)), delivery.ErrExists)
	r.kept(first)
	r.lists("of all", delivery.RecordQuery{}, first.ID)
}

func tellsSavesApart(r *storeRig) {
	r.save(plainRecord(1))
	nameless, statusless, odd := plainRecord(5), plainRecord(6), plainRecord(7)
	nameless.ID, statusless.Status, odd.Status = "", "", "PENDING"
	twice := plainRecord(2)
	twice.Body = []byte("the second of the call")
	errs := r.store.Save(r.Context(), plainRecord(0), nameless, plainRecord(1), plainRecord(2), statusless, twice, odd, plainRecord(3))
	r.errors("Save", errs, nil, delivery.ErrInvalid, delivery.ErrExists, nil, delivery.ErrInvalid, delivery.ErrExists, delivery.ErrInvalid, nil)
	r.kept(plainRecords(4)...)
	r.gone("", "record-0005", "record-0006", "record-0007")
	r.lists("of all", delivery.RecordQuery{Order: delivery.OldestFirst}, idsOf(plainRecords(4))...)
	r.counts(delivery.RecordStats{Total: 4, Counts: countsOf(plainRecords(4)), OldestPending: after(0)})
	r.errors("Save", r.store.Save(r.Context(), nameless), delivery.ErrInvalid)
}

func getsInOrder(r *storeRig) {
	records := plainRecords(3)
	r.save(records...)
	got, errs := r.store.Get(r.Context(), "record-0002", "nobody", "record-0000", "record-0002", "RECORD-0000", "")
	r.errors("Get", errs, nil, delivery.ErrNotFound, nil, nil, delivery.ErrNotFound, delivery.ErrNotFound)
	want := []delivery.Record{records[2], {}, records[0], records[2], {}, {}}
	if len(got) != len(want) {
		r.Fatalf("Get of %d IDs: %d records", len(want), len(got))
	}
	for i := range want {
		if err := recordDifferences(&want[i], &got[i]); err != nil {
			r.Errorf("Get: record %d: %v", i, err)
		}
	}
}

// manyRecordsAtOnce is more than one statement, or pipeline, may bear.
func manyRecordsAtOnce(r *storeRig) {
	const many = 3000
	records := plainRecords(many)
	for i := range records {
		records[i].DueAt = after(i)
	}
	r.save(records...)
	ids := idsOf(records)
	r.get(ids...)
	updates := make([]delivery.Update, many)
	for i := range updates {
		updates[i] = delivery.Update{ID: ids[many-1-i], Status: delivery.StatusRetrying, RetryCount: 1, At: after(many), DueAt: after(many + i)}
	}
	for i, progress := range r.update(updates...) {
		if !progress.DueAt.Equal(after(many + i)) {
			r.Fatalf("Update of many: DueAt %d is %s, want %s", i, progress.DueAt, after(many+i))
		}
	}
	claimed := idsOf(r.claim(delivery.StatusRetrying, "w", after(3*many), delivery.MaxClaim))
	slices.Reverse(claimed)
	if !slices.Equal(claimed, ids) {
		r.Errorf("Claim of %d, due in order: %d came, or not in order", many, len(claimed))
	}
	for i := range updates {
		updates[i].Status, updates[i].DueAt = delivery.StatusDelivered, time.Time{}
	}
	r.update(updates...)
	r.purge(after(many+1), many-1, many-1)
	r.purge(after(many+1), many, 1)
	r.lists("of all", delivery.RecordQuery{})
}

// endedContexts calls everything with a context that has ended.
func endedContexts(r *storeRig) {
	record := dueRecord(0, delivery.StatusPending, after(0))
	record.ClaimedBy = "p"
	done := plainRecord(1)
	done.Status = delivery.StatusDelivered
	r.save(record, done)
	ended, cancel := context.WithCancel(r.Context())
	cancel()
	late, stop := context.WithTimeout(r.Context(), -time.Second)
	defer stop()
	for ctx, want := range map[context.Context]error{ended: context.Canceled, late: context.DeadlineExceeded} {
		two := []error{want, want}
		r.errors("Save", r.store.Save(ctx, plainRecord(2), plainRecord(3)), two...)
		update := delivery.Update{ID: record.ID, Status: delivery.StatusQueued, At: after(1)}
		_, errs := r.store.Update(ctx, update, update)
		r.errors("Update", errs, two...)
		_, errs = r.store.Get(ctx, record.ID, done.ID)
		r.errors("Get", errs, two...)
		_, listed := r.store.List(ctx, delivery.RecordQuery{})
		_, claimed := r.store.Claim(ctx, claimOf(delivery.StatusPending, "w", after(1), 1))
		_, renewed := r.store.Renew(ctx, "p", after(1))
		_, next := r.store.NextDue(ctx, delivery.StatusPending)
		_, stats := r.store.Stats(ctx)
		_, purged := r.store.Purge(ctx, after(1000), 10)
		for call, err := range map[string]error{
			"List": listed, "Claim": claimed, "Renew": renewed, "NextDue": next, "Stats": stats, "Purge": purged,
		} {
			if !errors.Is(err, want) {
				r.Errorf("%s after the context's end: %v, want %v", call, err, want)
			}
		}
	}
	r.kept(record, done)
	r.gone("record-0002", "record-0003")
}

func pingStore(r *storeRig) {
	pinger, ok := r.store.(delivery.Pinger)
	if !ok {
		return
	}
	if err := pinger.Ping(r.Context()); err != nil {
		r.Errorf("Ping: %v", err)
	}
	ended, cancel := context.WithCancel(r.Context())
	cancel()
	if err := pinger.Ping(ended); !errors.Is(err, context.Canceled) {
		r.Errorf("Ping after the context's end: %v, want context.Canceled", err)
	}
}

// seesTheOthers does with one store what the other has to know at once.
func seesTheOthers(r *storeRig) {
	one, other := *r, *r
	other.store = r.stores[1]
	record := fullRecord(0)
	one.save(record)
	other.kept(record)
	r.errors("Save", other.store.Save(r.Context(), plainRecord(0)), delivery.ErrExists)
	record.ClaimedBy, record.DueAt = "w", record.DueAt.Add(storeLease)
	other.claims(delivery.StatusRetrying, "w", record.DueAt.Add(-storeLease), 1, record.ID)
	one.claims(delivery.StatusRetrying, "v", record.DueAt.Add(-time.Microsecond), 1)
	one.kept(record)
	update := delivery.Update{ID: record.ID, Status: delivery.StatusQueued, Generation: 3, RetryCount: 12, At: after(9), OnlyIfClaimedBy: "w"}
	if err := record.Apply(update); err != nil {
		r.Fatalf("Apply: %v", err)
	}
	one.update(update)
	other.kept(record)
	other.nextDue(time.Time{}, delivery.StatusRetrying)
	other.counts(delivery.RecordStats{Total: 1, Counts: countsOf([]delivery.Record{record})})
}
