package deliverytest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// storeStart is when the first record of a test is made.
var storeStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// after is a time so many seconds after storeStart.
func after(seconds int) time.Time { return storeStart.Add(time.Duration(seconds) * time.Second) }

// storeQueue is the queue of the records, unless the test says otherwise.
const storeQueue = "queue"

// plainRecord is record i of a series that are made second by second. It is
// pending, and nobody has claimed it.
func plainRecord(i int) delivery.Record {
	return delivery.Record{
		Message: delivery.Message{
			ID: fmt.Sprintf("record-%04d", i), Recipient: "recipient", Body: []byte("body"), CreatedAt: after(i),
		},
		Progress: delivery.Progress{Queue: storeQueue, Status: delivery.StatusPending, UpdatedAt: after(i)},
	}
}

// plainRecords are the first n of the series.
func plainRecords(n int) []delivery.Record {
	records := make([]delivery.Record, n)
	for i := range records {
		records[i] = plainRecord(i)
	}
	return records
}

// dueRecord is record i of the series with a status and a due time.
func dueRecord(i int, status delivery.Status, due time.Time) delivery.Record {
	record := plainRecord(i)
	record.Status, record.DueAt = status, due
	return record
}

// fullRecord is record i of the series with a value in every field.
func fullRecord(i int) delivery.Record {
	at := after(i).Add(123456 * time.Microsecond)
	record := plainRecord(i)
	record.Message = delivery.Message{
		ID:             record.ID,
		IdempotencyKey: fmt.Sprintf("order/%d ünïcödé ٣", i),
		Recipient:      "+966500000001, \"Ω\"\n",
		Subject:        "موضوع \U0001F4EC " + strings.Repeat("s", 900),
		Type:           "order.created",
		Body:           []byte("{\"body\": \x00\xff}"),
		ContentType:    "application/json; charset=utf-8",
		Headers:        map[string]string{"empty": "", "Case": "kept", "case": "too", "ключ": "значение\x00\t"},
		Priority:       delivery.Urgent,
		CreatedAt:      at,
		NotBefore:      at.Add(time.Microsecond),
		ExpiresAt:      at.Add(100 * 365 * 24 * time.Hour),
		RequireAck:     true,
	}
	record.Progress = delivery.Progress{
		Queue:        storeQueue,
		Status:       delivery.StatusRetrying,
		Generation:   3,
		RetryCount:   12,
		NextRetryAt:  at.Add(1 * time.Minute),
		LastRetryAt:  at.Add(2 * time.Minute),
		SentAt:       at.Add(3 * time.Minute),
		DeliveredAt:  at.Add(4 * time.Minute),
		ReadAt:       at.Add(5 * time.Minute),
		AckDeadline:  at.Add(6 * time.Minute),
		DeadLetterID: "letter/1 ünïcödé",
		DueAt:        at.Add(7 * time.Minute),
		ClaimedBy:    "worker 7 \"Ω\"",
		UpdatedAt:    at.Add(8 * time.Minute),
	}
	for i := range delivery.MaxHistory {
		record.History = append(record.History, delivery.Failure{
			At: at.Add(time.Duration(i) * time.Microsecond), Attempt: i, Error: "no answer; \"quoted\", ünïcödé " + strings.Repeat("e", 400),
		})
	}
	return record
}

// recordDifferences names the fields of a record that are not as wanted. Nil
// and empty are the same.
func recordDifferences(want, got *delivery.Record) error {
	return errors.Join(
		envelopeDifferences(&delivery.Envelope{Message: want.Message}, &delivery.Envelope{Message: got.Message}),
		progressDifferences(&want.Progress, &got.Progress),
		timeProblem(got.CreatedAt), timeProblem(got.NotBefore), timeProblem(got.ExpiresAt),
	)
}

// progressDifferences is recordDifferences for the progress alone.
func progressDifferences(want, got *delivery.Progress) error {
	errs := []error{envelopeDifferences(
		&delivery.Envelope{Generation: want.Generation, History: want.History},
		&delivery.Envelope{Generation: got.Generation, History: got.History},
	)}
	differ := func(field string, want, got any) {
		errs = append(errs, fmt.Errorf("%s is %.80v, want %.80v", field, got, want))
	}
	for _, field := range []struct{ name, want, got string }{
		{"Queue", want.Queue, got.Queue},
		{"Status", string(want.Status), string(got.Status)},
		{"DeadLetterID", want.DeadLetterID, got.DeadLetterID},
		{"ClaimedBy", want.ClaimedBy, got.ClaimedBy},
	} {
		if field.want != field.got {
			differ(field.name, field.want, field.got)
		}
	}
	if want.RetryCount != got.RetryCount {
		differ("RetryCount", want.RetryCount, got.RetryCount)
	}
	for _, field := range []struct {
		name      string
		want, got time.Time
	}{
		{"NextRetryAt", want.NextRetryAt, got.NextRetryAt},
		{"LastRetryAt", want.LastRetryAt, got.LastRetryAt},
		{"SentAt", want.SentAt, got.SentAt},
		{"DeliveredAt", want.DeliveredAt, got.DeliveredAt},
		{"ReadAt", want.ReadAt, got.ReadAt},
		{"AckDeadline", want.AckDeadline, got.AckDeadline},
		{"DueAt", want.DueAt, got.DueAt},
		{"UpdatedAt", want.UpdatedAt, got.UpdatedAt},
	} {
		if !field.want.Equal(field.got) {
			differ(field.name, field.want, field.got)
		}
		if err := timeProblem(field.got); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field.name, err))
		}
	}
	for i := range got.History {
		errs = append(errs, timeProblem(got.History[i].At))
	}
	return errors.Join(errs...)
}

// timeProblem says why a store must not return this time, or nil.
func timeProblem(at time.Time) error {
	switch {
	case at.Nanosecond()%1000 != 0:
		return fmt.Errorf("%s is not in whole microseconds", at.Format(time.RFC3339Nano))
	case at.Location().String() != "UTC":
		return fmt.Errorf("%s is not UTC", at)
	}
	return nil
}
