package sqlstore

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"github.com/esh3artech/barid/delivery"
)

// getCall is one call of Get on its way through the batcher.
type getCall struct {
	ctx     context.Context
	ids     []string
	records []delivery.Record
	errs    []error
	done    chan error
}

func (c *getCall) size() size { return size{rows: len(c.ids)} }

// Get implements delivery.Store.
func (s *Store) Get(ctx context.Context, ids ...string) ([]delivery.Record, []error) {
	records := make([]delivery.Record, len(ids))
	if err := s.usable(); err != nil {
		return records, slices.Repeat([]error{err}, len(ids))
	}
	errs := eachChunk(len(ids), chunkByCount(len(ids), s.config.MaxBatch), func(from, to int, _ size) ([]error, error) {
		c := &getCall{ctx: ctx, ids: slices.Clone(ids[from:to]), done: make(chan error, 1)}
		err := ctx.Err()
		if err == nil {
			err = withFault(ctx, "get", s.gets.await(ctx, c, c.done), s.fault.Err())
		}
		if err != nil {
			return slices.Repeat([]error{err}, to-from), err
		}
		copy(records[from:], c.records)
		return c.errs, nil
	})
	return records, errs
}

// newGetBatcher collects calls of Get, and reads their records together.
func newGetBatcher(s *Store) *batcher[*getCall] {
	return newBatcher(s.config.InFlight, s.config.MaxBatch, func() (func([]*getCall), func()) {
		return s.runGets, func() {}
	})
}

func (s *Store) runGets(calls []*getCall) {
	calls = slices.DeleteFunc(calls, func(c *getCall) bool { return c.ctx.Err() != nil })
	found := make(map[string]*delivery.Record)
	asked := make(map[string]int)
	var ids []string
	for _, c := range calls {
		for _, id := range c.ids {
			if asked[id]++; asked[id] == 1 {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Timeout)
	defer cancel()
	err := s.reader.tryRead(context.Background(), ctx, func(q querier) error {
		clear(found)
		all := make([]*delivery.Progress, 0, len(ids))
		err := s.dialect.queryByKeys(ctx, q, s.records.whole, keysOf(ids), func(answer scanner) error {
			r, err := scanWhole(answer)
			found[r.ID] = &r
			all = append(all, &r.Progress)
			return err
		})
		if err != nil {
			return err
		}
		return s.records.fillDueTimes(ctx, q, all)
	})
	if err != nil {
		err = &DatabaseError{Doing: "get", Err: err}
	}
	for _, c := range calls {
		c.records, c.errs = make([]delivery.Record, len(c.ids)), make([]error, len(c.ids))
		for i, id := range c.ids {
			asked[id]--
			switch r := found[id]; {
			case r == nil:
				c.errs[i] = delivery.ErrNotFound
			case asked[id] == 0: // the last one gets the record itself, the others copies
				c.records[i] = *r
			default:
				c.records[i] = copyOf(r)
			}
		}
		c.done <- err
	}
}

// copyOf is a copy of r for another caller that asked for the same record.
func copyOf(r *delivery.Record) delivery.Record {
	c := *r
	c.Body, c.Headers, c.History = bytes.Clone(r.Body), maps.Clone(r.Headers), slices.Clone(r.History)
	return c
}
