package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

// DeadLetters is a dlq.Store and a dlq.JobStore in the database of a Store,
// whose transactions it shares: what many callers ask for at the same time costs
// one commit together. A call for many ids takes a round trip or two for each
// Config.MaxBatch of them. Text is compared byte by byte.
//
// All fields may be of any length and have any bytes. Fields that entries are
// found by have room for 1024 bytes in an index; what is longer is found by its
// SHA-256, and entries with the same DeadAt and so long an ID may be listed in
// another order than that of their IDs.
type DeadLetters struct{ store *Store }

var (
	_ dlq.Store       = (*DeadLetters)(nil)
	_ delivery.Pinger = (*DeadLetters)(nil)
)

// DeadLetters returns the dlq.Store.
func (s *Store) DeadLetters() *DeadLetters { return &DeadLetters{store: s} }

func (d *DeadLetters) usable(ctx context.Context) error {
	if d == nil || d.store == nil {
		return fmt.Errorf("%w: DeadLetters is empty, want one of Store.DeadLetters", ErrConfig)
	}
	return ctx.Err()
}

// Ping implements delivery.Pinger.
func (d *DeadLetters) Ping(ctx context.Context) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	return d.store.Ping(ctx)
}

// Put implements dlq.Store. Up to Config.MaxBatch entries, of up to 16 MiB
// together, are put all or none. With dlq.ErrFull, which is ErrDiskFull too,
// nothing was put.
func (d *DeadLetters) Put(ctx context.Context, entries ...dlq.Entry) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	rows := make([]letterRows, len(entries))
	for i := range entries {
		var err error
		if rows[i], err = encodeLetter(&entries[i]); err != nil {
			return err
		}
	}
	for done := 0; done < len(rows); {
		c := &letterCall{action: putLetters}
		end, many := part(done, len(rows), d.store.config.MaxBatch, func(i int) int { return rows[i].size() })
		for _, r := range rows[done:end] {
			c.rows = append(c.rows, r)
			c.keys = append(c.keys, r.key)
		}
		if err := d.store.writer.perform(ctx, d.store.letters.steps, many, c); err != nil {
			if done == 0 && errors.Is(err, ErrDiskFull) {
				return fmt.Errorf("%w: %w", dlq.ErrFull, err)
			}
			return err
		}
		done = end
	}
	return nil
}

// Get implements dlq.Store.
func (d *DeadLetters) Get(ctx context.Context, ids ...string) ([]dlq.Entry, []error) {
	entries := make([]dlq.Entry, len(ids))
	if err := d.usable(ctx); err != nil || len(ids) == 0 {
		return entries, slices.Repeat([]error{err}, len(ids))
	}
	keys := shorts(ids)
	var found map[string]*letterContent
	err := d.store.read(ctx, "get dead letters", func(q querier) error {
		var err error
		found, err = d.contents(ctx, q, keys)
		return err
	})
	if err != nil {
		return entries, slices.Repeat([]error{err}, len(ids))
	}
	errs := make([]error, len(ids))
	for i, key := range keys {
		if found[key] == nil {
			errs[i] = dlq.ErrNotFound
		} else {
			entries[i], errs[i] = found[key].decode()
		}
	}
	return entries, errs
}

// contents are those that there are.
func (d *DeadLetters) contents(ctx context.Context, q querier, keys []string) (map[string]*letterContent, error) {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	found := make(map[string]*letterContent, len(keys))
	err := d.store.dialect.fetch(ctx, q, d.store.letters.whole, keysOf(slices.Compact(keys)), func(answer scanner) error {
		content, err := scanContent(answer)
		found[string(content.id)] = content
		return err
	})
	return found, err
}

// Claim implements dlq.Store. With ErrDamaged the entry is claimed all the same.
func (d *DeadLetters) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	entries := make([]dlq.Entry, len(ids))
	if err := claim.Validate(); err != nil {
		return entries, slices.Repeat([]error{err}, len(ids))
	}
	errs := d.each(ctx, ids, func() *letterCall {
		until := claim.Now.Add(claim.Lease)
		return &letterCall{action: claimLetters, token: claim.Token, now: claim.Now.UnixMicro(), until: until.UnixMicro()}
	}, func(from int, c *letterCall) {
		for i, content := range c.found {
			switch {
			case c.errs[i] != nil:
			case content == nil: // somebody has deleted it from one table only
				c.errs[i] = fmt.Errorf("%w: dead letter %.100q", ErrDamaged, c.keys[i])
			default:
				entries[from+i], c.errs[i] = content.decode()
			}
		}
	})
	return entries, errs
}

// Release implements dlq.Store.
func (d *DeadLetters) Release(ctx context.Context, token string, ids ...string) []error {
	return d.each(ctx, ids, func() *letterCall { return &letterCall{action: releaseLetters, token: token} }, nil)
}

// Remove implements dlq.Store.
func (d *DeadLetters) Remove(ctx context.Context, token string, ids ...string) []error {
	return d.each(ctx, ids, func() *letterCall { return &letterCall{action: removeLetters, token: token} }, nil)
}

// Delete implements dlq.Store.
func (d *DeadLetters) Delete(ctx context.Context, now time.Time, ids ...string) []error {
	return d.each(ctx, ids, func() *letterCall { return &letterCall{action: deleteLetters, now: now.UnixMicro()} }, nil)
}

// each has a call carried out for parts of ids, and done told of each part that
// was, if it is not nil.
func (d *DeadLetters) each(ctx context.Context, ids []string, begin func() *letterCall, done func(from int, c *letterCall)) []error {
	if err := d.usable(ctx); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	return eachChunk(len(ids), byCount(len(ids), d.store.config.MaxBatch), func(from, to int, many size) ([]error, error) {
		c := begin()
		c.keys = shorts(ids[from:to])
		if err := d.store.writer.perform(ctx, d.store.letters.steps, many, c); err != nil {
			return slices.Repeat([]error{err}, to-from), err
		}
		if done != nil {
			done(from, c)
		}
		return c.errs, nil
	})
}

// Purge implements dlq.Store. It deletes up to a thousand at a time, so that
// others need not wait long; after an error some may be deleted.
func (d *DeadLetters) Purge(ctx context.Context, before, now time.Time) (int, error) {
	if err := d.usable(ctx); err != nil {
		return 0, err
	}
	purged := 0
	var after []any // the last place that was looked at
	for {
		c := &letterCall{action: purgeLetters, now: now.UnixMicro(), before: microsUp(before)}
		where := &conditions{dialect: d.store.dialect}
		where.add("dead_at < %s", c.before)
		where.add("(claim_token IS NULL OR claimed_until <= %s)", c.now)
		if after != nil {
			where.add("(dead_at, id) > (%s, %s)", after...)
		}
		text := fmt.Sprintf("SELECT id, dead_at FROM %s%s ORDER BY dead_at, id LIMIT %d", d.store.letters.heads.name, where.where(), purgeChunk)
		err := d.store.read(ctx, "purge dead letters", func(q querier) error {
			c.keys = nil
			return query(ctx, q, func(answer scanner) error {
				var key intoBytes
				var deadAt int64
				err := answer.Scan(&key, &deadAt)
				c.keys = append(c.keys, string(key))
				after = []any{deadAt, []byte(key)}
				return err
			}, text, where.args...)
		})
		if err != nil || len(c.keys) == 0 {
			return purged, err
		}
		if err := d.store.writer.perform(ctx, d.store.letters.steps, size{rows: len(c.keys)}, c); err != nil {
			return purged, err
		}
		for _, err := range c.errs {
			if err == nil {
				purged++
			}
		}
		if len(c.keys) < purgeChunk {
			return purged, nil
		}
	}
}
