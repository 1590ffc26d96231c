package memory

import (
	"context"

	"github.com/esh3artech/barid/delivery"
)

// List implements delivery.Store.
func (s *Store) List(ctx context.Context, query delivery.RecordQuery) (delivery.RecordPage, error) {
	if err := s.usable(ctx); err != nil {
		return delivery.RecordPage{}, err
	}
	scan, err := query.Scan()
	if err != nil {
		return delivery.RecordPage{}, err
	}
	list := recordList{scan: scan, after: beginning(&scan)}
	for !list.done {
		if err := ctx.Err(); err != nil {
			return delivery.RecordPage{}, err
		}
		s.mu.RLock()
		list.read(&s.records.byAge, maxLocked)
		s.mu.RUnlock()
	}
	for i := range list.page.Records {
		isolateRecord(&list.page.Records[i])
	}
	return list.page, nil
}

// recordList is a page that is being read.
type recordList struct {
	scan  delivery.RecordScan
	page  delivery.RecordPage
	after *delivery.Position // where it goes on; nil for the very beginning
	done  bool
}

// beginning is the position after which a scan begins: the cursor's, or one
// from the filter's times.
func beginning(scan *delivery.RecordScan) *delivery.Position {
	switch {
	case scan.After.ID != "":
		return &scan.After
	case scan.Order == delivery.NewestFirst && !scan.Until.IsZero():
		return &delivery.Position{At: scan.Until}
	case scan.Order == delivery.OldestFirst && !scan.Since.IsZero():
		return &delivery.Position{At: scan.Since}
	}
	return nil
}

// read goes on with up to count records.
func (l *recordList) read(records *sortedList, count int) {
	l.done = true
	var last delivery.Position
	records.walk(l.scan.Order, l.after, func(r *storedRecord) bool {
		if count == 0 {
			l.done, l.after = false, &last
			return false
		}
		count--
		last = delivery.PositionOf(&r.record)
		switch {
		case l.beyond(&r.record):
			return false
		case !l.scan.Match(&r.record):
			return true
		case len(l.page.Records) == l.scan.Limit:
			l.page.Next = l.scan.Cursor(&l.page.Records[l.scan.Limit-1])
			return false
		}
		record := r.record
		record.Body = nil
		l.page.Records = append(l.page.Records, record)
		return true
	})
}

// beyond returns whether neither record nor any after it lies within the
// filter's times.
func (l *recordList) beyond(record *delivery.Record) bool {
	if l.scan.Order == delivery.NewestFirst {
		return !l.scan.Since.IsZero() && record.CreatedAt.Before(l.scan.Since)
	}
	return !l.scan.Until.IsZero() && !record.CreatedAt.Before(l.scan.Until)
}
