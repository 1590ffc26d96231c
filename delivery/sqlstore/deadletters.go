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

// DeadLetters is a dlq.Store and a dlq.JobStore in the database of a Store. It
// shares the Store's transactions: calls that come at the same time cost one
// commit together. A call for many IDs takes one or two round trips for each
// Config.MaxBatch of them. Text is compared byte by byte.
//
// All fields may be of any length and hold any bytes. The fields by which
// entries are found have room for 1024 bytes in an index. A longer one is found
// by its SHA-256. Entries with the same DeadAt and an ID that is that long may
// be listed in another order than that of their IDs.
type DeadLetters struct{ store *Store }

var (
	_ dlq.Store       = (*DeadLetters)(nil)
	_ delivery.Pinger = (*DeadLetters)(nil)
)

// DeadLetters returns the dlq.Store.
func (s *Store) DeadLetters() *DeadLetters { return &DeadLetters{store: s} }

func (d *DeadLetters) usable(ctx context.Context) error {
	if d == nil {
		return fmt.Errorf("%w: DeadLetters is nil, want one of Store.DeadLetters", ErrConfig)
	}
	if err := d.store.usable(); err != nil {
		return err
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
// together, are put all or none. When the error is dlq.ErrFull, which matches
// ErrDiskFull too, nothing was put.
func (d *DeadLetters) Put(ctx context.Context, entries ...dlq.Entry) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	rows := make([]encodedDeadLetter, len(entries))
	for i := range entries {
		var err error
		if rows[i], err = encodeDeadLetter(&entries[i]); err != nil {
			return err
		}
	}
	for done := 0; done < len(rows); {
		c := &deadLetterCall{action: putDeadLetters}
		end, amount := chunkBySize(done, len(rows), d.store.config.MaxBatch, func(i int) int { return rows[i].size() })
		for _, r := range rows[done:end] {
			c.rows = append(c.rows, r)
			c.keys = append(c.keys, r.key)
		}
		if err := d.store.writer.execute(ctx, d.store.letters.operation, amount, c); err != nil {
			// Whether a call whose ctx has ended was executed is not known.
			if done == 0 && errors.Is(err, ErrDiskFull) && !errors.Is(err, ctx.Err()) {
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
	keys := shortenAll(ids)
	var found map[string]*deadLetterContent
	err := d.store.reader.read(ctx, "get dead letters", func(q querier) error {
		var err error
		found, err = d.store.letters.readContents(ctx, q, keys)
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

// readContents reads the contents of those keys that are there.
func (l *deadLetterTables) readContents(ctx context.Context, q querier, keys []string) (map[string]*deadLetterContent, error) {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	found := make(map[string]*deadLetterContent, len(keys))
	err := l.heads.dialect.queryByKeys(ctx, q, l.whole, keysOf(slices.Compact(keys)), func(answer scanner) error {
		content, err := scanContent(answer)
		found[string(content.id)] = content
		return err
	})
	return found, err
}

// Claim implements dlq.Store. An entry with ErrDamaged is claimed nevertheless.
func (d *DeadLetters) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	entries := make([]dlq.Entry, len(ids))
	if err := claim.Validate(); err != nil {
		return entries, slices.Repeat([]error{err}, len(ids))
	}
	errs := d.executeEach(ctx, ids, func() *deadLetterCall {
		until := claim.Now.Add(claim.Lease)
		return &deadLetterCall{action: claimDeadLetters, token: claim.Token, now: claim.Now.UnixMicro(), until: until.UnixMicro()}
	}, func(from int, c *deadLetterCall) {
		for i, content := range c.found {
			switch {
			case c.errs[i] != nil:
			case content == nil: // it was deleted from one table only
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
	return d.executeEach(ctx, ids, func() *deadLetterCall { return &deadLetterCall{action: releaseDeadLetters, token: token} }, nil)
}

// Remove implements dlq.Store.
func (d *DeadLetters) Remove(ctx context.Context, token string, ids ...string) []error {
	return d.executeEach(ctx, ids, func() *deadLetterCall { return &deadLetterCall{action: removeDeadLetters, token: token} }, nil)
}

// Delete implements dlq.Store.
func (d *DeadLetters) Delete(ctx context.Context, now time.Time, ids ...string) []error {
	return d.executeEach(ctx, ids, func() *deadLetterCall { return &deadLetterCall{action: deleteDeadLetters, now: now.UnixMicro()} }, nil)
}

// executeEach has a call executed for each chunk of ids. If done is not nil, it
// is called after each chunk that was executed.
func (d *DeadLetters) executeEach(ctx context.Context, ids []string, begin func() *deadLetterCall, done func(from int, c *deadLetterCall)) []error {
	if err := d.usable(ctx); err != nil {
		return slices.Repeat([]error{err}, len(ids))
	}
	return eachChunk(len(ids), chunkByCount(len(ids), d.store.config.MaxBatch), func(from, to int, amount size) ([]error, error) {
		c := begin()
		c.keys = shortenAll(ids[from:to])
		if err := d.store.writer.execute(ctx, d.store.letters.operation, amount, c); err != nil {
			return slices.Repeat([]error{err}, to-from), err
		}
		if done != nil {
			done(from, c)
		}
		return c.errs, nil
	})
}

// Purge implements dlq.Store. It deletes up to a thousand at a time, so that
// others don't wait long. After an error some may be deleted.
func (d *DeadLetters) Purge(ctx context.Context, before, now time.Time) (int, error) {
	if err := d.usable(ctx); err != nil {
		return 0, err
	}
	purged := 0
	var after []any // the position of the last row that was read
	for {
		c := &deadLetterCall{action: purgeDeadLetters, now: now.UnixMicro(), before: microsUp(before)}
		where := &conditions{dialect: d.store.dialect}
		where.add("dead_at < %s", c.before)
		where.add("(claim_token IS NULL OR claimed_until <= %s)", c.now)
		if after != nil {
			where.add("(dead_at, id) > (%s, %s)", after...)
		}
		text := fmt.Sprintf("SELECT id, dead_at FROM %s%s ORDER BY dead_at, id LIMIT %d", d.store.letters.heads.name, where.where(), purgeChunk)
		err := d.store.reader.read(ctx, "purge dead letters", func(q querier) error {
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
		if err := d.store.writer.execute(ctx, d.store.letters.operation, size{rows: len(c.keys)}, c); err != nil {
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
