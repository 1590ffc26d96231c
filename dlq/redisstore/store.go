package redisstore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry/lastfault"
)

// Store keeps dead letters in Redis. Any number of goroutines may use it at
// once. It has nothing to close, because the client stays the host's.
type Store struct {
	client  redis.UniversalClient
	config  Config
	fault   error
	keys    keys
	scripts scripts
	// checked is true when Check has succeeded once.
	checked atomic.Bool
	// lastFault is noted of every round trip.
	lastFault lastfault.Fault
}

var _ dlq.Store = (*Store)(nil)

// New returns a Store on client, which may be a client of a single server, of
// Sentinel, or of a cluster. It does not talk to Redis yet. If config or the
// client can't be used, Err and every method return what is wrong.
func New(client redis.UniversalClient, config Config) *Store {
	config = config.withDefaults()
	faults := []error{config.validate()}
	if missing(client) {
		faults = append(faults, fmt.Errorf("%w: client is nil", ErrConfig))
	}
	return &Store{
		client:  client,
		config:  config,
		fault:   errors.Join(faults...),
		keys:    newKeys(config.Prefix),
		scripts: newScripts(),
	}
}

// missing reports whether client is nil, or a nil pointer such as a nil
// *redis.Client.
func missing(client redis.UniversalClient) bool {
	if client == nil {
		return true
	}
	value := reflect.ValueOf(client)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

// Err returns what is wrong with the configuration, as ErrConfig, or nil.
func (s *Store) Err() error {
	if s == nil || s.client == nil && s.fault == nil {
		return fmt.Errorf("%w: Store is empty, want one from New", ErrConfig)
	}
	return s.fault
}

func (s *Store) usable(ctx context.Context) error {
	if err := s.Err(); err != nil {
		return err
	}
	if ctx == nil {
		return fmt.Errorf("%w: context is nil", dlq.ErrInvalid)
	}
	return ctx.Err()
}

// Put implements dlq.Store. Up to 256 entries, of up to 4 MiB together, are put
// in one round trip, all or none. When Redis is out of memory, the error is
// dlq.ErrFull and nothing was put. If that happens after a part was put, the
// error is an *UnavailableError.
func (s *Store) Put(ctx context.Context, entries ...dlq.Entry) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	hashes := make([]entryHash, len(entries))
	for i := range entries {
		var err error
		if hashes[i], err = newEntryHash(&entries[i]); err != nil {
			return err
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	if err := s.ensureChecked(ctx); err != nil {
		return err
	}
	done := 0
	for _, batch := range roundTrips(hashes, (*entryHash).size) {
		ids := make([]string, len(batch))
		arguments := make([]any, 0, len(batch)*(1+len(hashFields)))
		for i := range batch {
			ids[i] = batch[i].id
			arguments = append(arguments, batch[i].arguments()...)
		}
		if _, err := s.runScript(ctx, "put", s.scripts.put, ids, arguments...); err != nil {
			if done == 0 && outOfMemory(err) {
				return fmt.Errorf("%w: %w", dlq.ErrFull, err)
			}
			return err
		}
		done += len(batch)
	}
	return nil
}

// Get implements dlq.Store.
func (s *Store) Get(ctx context.Context, ids ...string) ([]dlq.Entry, []error) {
	entries := make([]dlq.Entry, len(ids))
	if err := s.usable(ctx); err != nil {
		return entries, slices.Repeat([]error{err}, len(ids))
	}
	wanted := make([]wanted, len(ids))
	for i, id := range ids {
		wanted[i].id = id
	}
	if len(ids) > 1 { // one can be of any size
		for from := 0; from < len(ids); from += tripEntries {
			part := ids[from:min(from+tripEntries, len(ids))]
			heads, err := s.heads(ctx, "get", part)
			if err != nil {
				return entries, slices.Repeat([]error{err}, len(ids))
			}
			for i := range heads {
				wanted[from+i].size = heads[i].size
			}
		}
	}
	errs := make([]error, len(ids))
	s.fetch(ctx, "get", wanted, func(i int, entry dlq.Entry, err error) { entries[i], errs[i] = entry, err })
	return entries, errs
}

// Claim implements dlq.Store.
func (s *Store) Claim(ctx context.Context, claim dlq.Claim, ids ...string) ([]dlq.Entry, []error) {
	entries := make([]dlq.Entry, len(ids))
	err := s.usable(ctx)
	if err == nil {
		err = claim.Validate()
	}
	if err != nil {
		return entries, slices.Repeat([]error{err}, len(ids))
	}
	errs := make([]error, len(ids))
	var won []wanted
	var places []int
	until := claim.Now.Add(claim.Lease)
	for from := 0; from < len(ids); from += tripEntries {
		batch := ids[from:min(from+tripEntries, len(ids))]
		answers, err := s.runScript(ctx, "claim", s.scripts.claim, batch, claim.Token, unixMicro(claim.Now), unixMicro(until))
		if err == nil && len(answers) != 2*len(batch) {
			err = unexpected("claim")
		}
		if err != nil {
			fill(errs[from:], err)
			break
		}
		for i, id := range batch {
			errs[from+i] = errorOf("claim", answers[2*i])
			if errs[from+i] == nil {
				won = append(won, wanted{id: id, size: int(answers[2*i+1])})
				places = append(places, from+i)
			}
		}
	}
	// What is replaced from here on is returned as it is by then, and the claim
	// does not entitle to remove it.
	s.fetch(ctx, "claim", won, func(i int, entry dlq.Entry, err error) {
		entries[places[i]], errs[places[i]] = entry, err
	})
	return entries, errs
}

// Release implements dlq.Store.
func (s *Store) Release(ctx context.Context, token string, ids ...string) []error {
	return s.change(ctx, "release", ids, func([]string) (*redis.Script, []any) {
		return s.scripts.release, []any{token}
	})
}

// Remove implements dlq.Store.
func (s *Store) Remove(ctx context.Context, token string, ids ...string) []error {
	return s.change(ctx, "remove", ids, func(batch []string) (*redis.Script, []any) {
		arguments := make([]any, 0, 1+len(batch))
		arguments = append(arguments, token)
		for _, id := range batch {
			arguments = append(arguments, id)
		}
		return s.scripts.remove, arguments
	})
}

// Delete implements dlq.Store.
func (s *Store) Delete(ctx context.Context, now time.Time, ids ...string) []error {
	return s.change(ctx, "delete", ids, func(batch []string) (*redis.Script, []any) {
		arguments := make([]any, 0, 1+2*len(batch))
		arguments = append(arguments, unixMicro(now))
		for _, id := range batch {
			arguments = append(arguments, id, "")
		}
		return s.scripts.discard, arguments
	})
}

// change runs a script on ids in batches. step returns the script and its
// arguments. The script answers a number for each entry.
func (s *Store) change(ctx context.Context, op string, ids []string, step func(batch []string) (*redis.Script, []any)) []error {
	errs := make([]error, len(ids))
	if err := s.usable(ctx); err != nil {
		fill(errs, err)
		return errs
	}
	for from := 0; from < len(ids); from += tripEntries {
		batch := ids[from:min(from+tripEntries, len(ids))]
		script, arguments := step(batch)
		answers, err := s.runScript(ctx, op, script, batch, arguments...)
		if err == nil && len(answers) != len(batch) {
			err = unexpected(op)
		}
		if err != nil {
			fill(errs[from:], err)
			break
		}
		for i := range batch {
			errs[from+i] = errorOf(op, answers[i])
		}
	}
	return errs
}

func fill(errs []error, err error) {
	for i := range errs {
		errs[i] = err
	}
}
