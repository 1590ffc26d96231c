package sqlstore

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// maxIndexedBytes bounds the fields that stand in an index: PostgreSQL takes no
// index entry over a third of a page, and the longest entry has two such
// fields.
const maxIndexedBytes = 1024

// recordTables are the two tables that records are kept in.
type recordTables struct {
	dialect  *dialect
	messages *table // the columns that never change
	progress *table // all columns of the progress
	changes  *table // those that an update changes
	claims   *table // those that a claim changes

	leases string // the name of the table of leases

	whole       lookup // message and progress
	lockedState lookup // progress, locked
	leasesOf    lookup // of tokens
}

var messageColumns = []column{ //nolint:gochecknoglobals // a constant
	{"id", blob}, {"idempotency_key", blob}, {"recipient", blob}, {"subject", blob}, {"type", blob},
	{"content_type", blob}, {"headers", blob}, {"priority", count}, {"created_at", integer}, {"not_before", integer},
	{"expires_at", integer}, {"require_ack", count}, {"body", blob},
}

var progressColumns = []column{ //nolint:gochecknoglobals // a constant
	{"id", blob}, {"status", text}, {"generation", count}, {"retry_count", count}, {"next_retry_at", integer},
	{"last_retry_at", integer}, {"sent_at", integer}, {"delivered_at", integer}, {"read_at", integer}, {"ack_deadline", integer},
	{"dead_letter_id", blob}, {"due_at", integer}, {"claimed_by", blob}, {"updated_at", integer}, {"history", blob}, {"queue", blob},
}

// listedColumns are copies of message columns in the progress, for lists and
// counts that don't read the messages.
var listedColumns = []column{{"priority", count}, {"created_at", integer}} //nolint:gochecknoglobals // a constant

func newRecordTables(d *dialect, prefix string) *recordTables {
	messages, progress := prefix+"messages", prefix+"progress"
	joined := fmt.Sprintf("%s AS m JOIN %s AS p ON p.id = m.id", messages, progress)
	return &recordTables{
		dialect:     d,
		messages:    newTable(d, messages, messageColumns...),
		progress:    newTable(d, progress, append(progressColumns[:len(progressColumns):len(progressColumns)], listedColumns...)...),
		changes:     newTable(d, progress, progressColumns...),
		claims:      newTable(d, progress, column{"id", blob}, column{"claimed_by", blob}, column{"due_at", integer}),
		leases:      prefix + "leases",
		whole:       d.lookup(named("m", messageColumns)+", "+named("p", progressColumns[1:]), joined, "m.id", ""),
		lockedState: d.lookup(named("p", progressColumns), progress+" AS p", "p.id", "p"),
		leasesOf:    d.lookup("token, queue, until", prefix+"leases", "token", ""),
	}
}

// named lists columns of an alias for a SELECT.
func named(alias string, columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = alias + "." + c.name
	}
	return strings.Join(names, ", ")
}

// encodedRecord is a record as rows of its tables.
type encodedRecord struct {
	message, progress row
	due               time.Time
}

func (e *encodedRecord) key() []byte { return e.message.key() }

func compareKeys(a, b *encodedRecord) int { return bytes.Compare(a.key(), b.key()) }

// encodeRecord turns record into rows that share nothing with it.
func encodeRecord(record *delivery.Record) (encodedRecord, error) {
	if err := checkRecord(record); err != nil {
		return encodedRecord{}, err
	}
	id := []byte(record.ID)
	var body any
	if record.Body != nil {
		body = bytes.Clone(record.Body)
	}
	return encodedRecord{
		due: record.DueAt,
		message: row{
			id, bytesOf(record.IdempotencyKey), bytesOf(record.Recipient), bytesOf(record.Subject), bytesOf(record.Type),
			bytesOf(record.ContentType), headersOf(record.Headers), int64(record.Priority), record.CreatedAt.UnixMicro(),
			microsOf(record.NotBefore), microsOf(record.ExpiresAt), flagOf(record.RequireAck), body,
		},
		progress: append(encodeProgress(id, &record.Progress), int64(record.Priority), record.CreatedAt.UnixMicro()),
	}, nil
}

// checkRecord returns why record can't be stored, or nil.
func checkRecord(record *delivery.Record) error {
	var faults []error
	if record.ID == "" {
		faults = append(faults, &delivery.InvalidError{Field: "ID", Problem: "is empty"})
	}
	if record.Queue == "" {
		faults = append(faults, &delivery.InvalidError{Field: "Queue", Problem: "is empty"})
	}
	if !record.Status.Valid() {
		faults = append(faults, &delivery.InvalidError{
			Field: "Status", Problem: fmt.Sprintf("is %.32q, want one of the statuses", string(record.Status)),
		})
	}
	for _, field := range []struct{ name, value string }{
		{"ID", record.ID}, {"Recipient", record.Recipient}, {"IdempotencyKey", record.IdempotencyKey}, {"Type", record.Type},
		{"ClaimedBy", record.ClaimedBy}, {"Queue", record.Queue},
	} {
		if len(field.value) > maxIndexedBytes {
			faults = append(faults, &delivery.TooLargeError{Field: field.name, Size: len(field.value), Limit: maxIndexedBytes})
		}
	}
	return errors.Join(faults...)
}

// textBytes is how many bytes of text record has, without the fields whose
// length is bounded.
func textBytes(record *delivery.Record) int {
	n := len(record.Body) + len(record.Subject) + len(record.Type) + len(record.ContentType)
	for key, value := range record.Headers {
		n += len(key) + len(value)
	}
	for i := range record.History {
		n += len(record.History[i].Error)
	}
	return n
}

func encodeProgress(id []byte, p *delivery.Progress) row {
	return append(make(row, 0, len(progressColumns)+len(listedColumns)),
		id, string(p.Status), int64(p.Generation), int64(p.RetryCount), microsOf(p.NextRetryAt),
		microsOf(p.LastRetryAt), microsOf(p.SentAt), microsOf(p.DeliveredAt), microsOf(p.ReadAt), microsOf(p.AckDeadline),
		bytesOf(p.DeadLetterID), microsOf(p.DueAt), bytesOf(p.ClaimedBy), p.UpdatedAt.UnixMicro(), historyOf(p.History), bytesOf(p.Queue),
	)
}

// intoMessage are scan targets for messageColumns without the body.
func intoMessage(m *delivery.Message) []any {
	return []any{
		(*intoString)(&m.ID), (*intoString)(&m.IdempotencyKey), (*intoString)(&m.Recipient), (*intoString)(&m.Subject),
		(*intoString)(&m.Type), (*intoString)(&m.ContentType), (*intoHeaders)(&m.Headers), (*intoPriority)(&m.Priority),
		(*intoTime)(&m.CreatedAt), (*intoTime)(&m.NotBefore), (*intoTime)(&m.ExpiresAt), (*intoFlag)(&m.RequireAck),
	}
}

// intoProgress are scan targets for progressColumns without the key.
func intoProgress(p *delivery.Progress) []any {
	return []any{
		(*intoStatus)(&p.Status), (*intoInt)(&p.Generation), (*intoInt)(&p.RetryCount), (*intoTime)(&p.NextRetryAt),
		(*intoTime)(&p.LastRetryAt), (*intoTime)(&p.SentAt), (*intoTime)(&p.DeliveredAt), (*intoTime)(&p.ReadAt),
		(*intoTime)(&p.AckDeadline), (*intoString)(&p.DeadLetterID), (*intoTime)(&p.DueAt), (*intoString)(&p.ClaimedBy),
		(*intoTime)(&p.UpdatedAt), (*intoHistory)(&p.History), (*intoString)(&p.Queue),
	}
}

// scanWhole reads a row of recordTables.whole.
func scanWhole(answer scanner) (delivery.Record, error) {
	var r delivery.Record
	into := append(intoMessage(&r.Message), (*intoBytes)(&r.Body))
	err := answer.Scan(append(into, intoProgress(&r.Progress)...)...)
	return r, err
}
