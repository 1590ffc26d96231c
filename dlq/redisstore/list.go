package redisstore

import (
	"context"
	"errors"

	"github.com/esh3artech/barid/dlq"
)

// List implements dlq.Store. It reads the index of the field that fits the
// fewest entries, and filters those by small parts of them. Bodies are read for
// the page only. Where few entries fit all fields, but many fit each single
// one, that takes many round trips. ctx bounds them.
func (s *Store) List(ctx context.Context, query dlq.Query) (dlq.Page, error) {
	if err := s.usable(ctx); err != nil {
		return dlq.Page{}, err
	}
	scan, err := query.Scan()
	if err != nil {
		return dlq.Page{}, err
	}
	r, err := s.narrowest(ctx, "list", &scan)
	if err != nil {
		return dlq.Page{}, err
	}
	page := dlq.Page{Entries: []dlq.Entry{}}
	for {
		room := scan.Limit - len(page.Entries)
		count := scanChunk
		if r.exact {
			count = room + 1
		}
		found, err := s.readIndex(ctx, "list", r, count)
		if err != nil {
			return dlq.Page{}, err
		}
		matching, err := s.matching(ctx, "list", &scan, found)
		if err != nil {
			return dlq.Page{}, err
		}
		more := len(matching) > room
		if more {
			matching = matching[:room]
		}
		if err := s.addTo(ctx, &page, matching); err != nil {
			return dlq.Page{}, err
		}
		switch {
		case more && len(page.Entries) == scan.Limit:
			page.Next = scan.Cursor(&page.Entries[scan.Limit-1])
			return page, nil
		case more: // some were deleted while they were read: read on for others
			last := matching[len(matching)-1]
			r.after(last.place + last.id)
		case len(found) < count:
			return page, nil
		default:
			last := found[len(found)-1]
			r.after(last.place + last.id)
		}
	}
}

// addTo reads entries and adds those that still exist to a page.
func (s *Store) addTo(ctx context.Context, page *dlq.Page, matching []wanted) error {
	var failed error
	s.fetch(ctx, "list", matching, func(_ int, entry dlq.Entry, err error) {
		switch {
		case err == nil:
			page.Entries = append(page.Entries, entry)
		case failed == nil && !errors.Is(err, dlq.ErrNotFound):
			failed = err
		}
	})
	return failed
}
