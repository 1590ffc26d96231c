package dlq_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

func TestQueryFaultsAreAllNamed(t *testing.T) {
	query := dlq.Query{
		Filter: dlq.Filter{Since: noon, Until: noon}, Order: 9, Limit: 1001, Cursor: "*",
	}
	_, err := query.Scan()
	require.ErrorIs(t, err, dlq.ErrQuery)
	require.ErrorIs(t, err, dlq.ErrCursor)
	for _, text := range []string{
		"Limit is 1001, want 1 to 1000", "Order is 9, want NewestFirst or OldestFirst", "Since is not before Until", "it is damaged",
	} {
		assert.ErrorContains(t, err, text)
	}
}

func TestScanOfCursor(t *testing.T) {
	filter := dlq.Filter{Type: "sms", Since: noon}
	query := dlq.Query{Filter: filter, Order: dlq.OldestFirst}
	scan, err := query.Scan()
	require.NoError(t, err)
	assert.Equal(t, dlq.Scan{Filter: filter, Order: dlq.OldestFirst, Limit: dlq.DefaultLimit}, scan)

	last := dlq.Entry{ID: "id \xff", DeadAt: noon.Add(time.Microsecond)}
	query.Cursor = scan.Cursor(&last)
	scan, err = query.Scan()
	require.NoError(t, err)
	assert.Equal(t, delivery.Position{At: last.DeadAt, ID: last.ID}, scan.After)
}

func TestCursorIsForOneFilterAndOrder(t *testing.T) {
	base := dlq.Query{Filter: dlq.Filter{
		Reason: "r", Recipient: "to", Type: "t", Fingerprint: "f", Source: "s", Since: noon, Until: noon.Add(time.Hour),
	}}
	scan, err := base.Scan()
	require.NoError(t, err)
	cursor := scan.Cursor(&dlq.Entry{ID: "x", DeadAt: noon})
	for name, change := range map[string]func(*dlq.Query){
		"reason":      func(q *dlq.Query) { q.Reason = "" },
		"recipient":   func(q *dlq.Query) { q.Recipient = "" },
		"type":        func(q *dlq.Query) { q.Type = "" },
		"fingerprint": func(q *dlq.Query) { q.Fingerprint = "" },
		"source":      func(q *dlq.Query) { q.Source = "" },
		"since":       func(q *dlq.Query) { q.Since = q.Since.Add(time.Second) },
		"until":       func(q *dlq.Query) { q.Until = time.Time{} },
		"order":       func(q *dlq.Query) { q.Order = dlq.OldestFirst },
		"shifted":     func(q *dlq.Query) { q.Recipient, q.Type = "tot", "" },
	} {
		query := base
		change(&query)
		query.Cursor = cursor
		_, err := query.Scan()
		require.ErrorIs(t, err, dlq.ErrCursor, name)
	}
	base.Cursor = cursor
	_, err = base.Scan()
	require.NoError(t, err)
}

func FuzzCursor(f *testing.F) {
	var query dlq.Query
	scan, err := query.Scan()
	require.NoError(f, err)
	f.Add(scan.Cursor(&dlq.Entry{ID: "x", DeadAt: noon}))
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, cursor string) {
		query := dlq.Query{Cursor: cursor}
		scan, err := query.Scan()
		if err != nil {
			require.ErrorIs(t, err, dlq.ErrCursor)
			return
		}
		if cursor != "" {
			// Every cursor that is taken is one that was given.
			assert.Equal(t, cursor, scan.Cursor(&dlq.Entry{ID: scan.After.ID, DeadAt: scan.After.At}))
		}
	})
}
