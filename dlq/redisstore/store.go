package redisstore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
)

// How much goes in one round trip at most: a script keeps everybody else
// waiting, and a client's timeouts are for a whole round trip. An entry that is
// larger by itself goes alone.
const (
	tripEntries = 256
	tripBytes   = 4 << 20
)

// Store keeps dead letters in Redis. Any number of goroutines may use it at
// once. It has nothing to close: the client stays the host's.
type Store struct {
	client  redis.UniversalClient
	config  Config
	fault   error
	keys    keys
	scripts scripts
	// checked is set once Redis has been found not to evict entries.
	checked atomic.Bool
}

var _ dlq.Store = (*Store)(nil)

// New returns a Store on client, which may be a client of a single server, of
// Sentinel, or of a cluster. It does not talk to Redis yet. A fault in config or
// a nil client is kept: Err tells it, and every use returns it.
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

// missing also finds a nil *redis.Client, which is not a nil interface.
func missing(client redis.UniversalClient) bool {
	if client == nil {
		return true
	}
	value := reflect.ValueOf(client)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

// Err tells what is wrong with the configuration, as an ErrConfig; nil when
// nothing is.
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
// in one round trip, all or none. With dlq.ErrFull, which is Redis being out of
// memory, nothing was put; when that happens after a part was put, the error is
// an *UnavailableError.
func (s *Store) Put(ctx context.Context, entries ...dlq.Entry) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	records := make([]record, len(entries))
	for i := range entries {
		var err error
		if records[i], err = newRecord(&entries[i]); err != nil {
			return err
		}
	}
	if len(records) == 0 {
		return nil
	}
	if err := s.ensureChecked(ctx); err != nil {
		return err
	}
	done := 0
	for _, batch := range trips(records, (*record).size) {
		ids := make([]string, len(batch))
		arguments := make([]any, 0, len(batch)*(1+len(recordFields)))
		for i := range batch {
			ids[i] = batch[i].id
			arguments = append(arguments, batch[i].arguments()...)
		}
		if _, err := s.run(ctx, "put", s.scripts.put, ids, arguments...); err != nil {
			if done == 0 && outOfMemory(err) {
				return fmt.Errorf("%w: %w", dlq.ErrFull, err)
			}
			return err
		}
		done += len(batch)
	}
	return nil
}

// trips cuts what there is into what goes in one round trip each.
func trips[T any](all []T, size func(*T) int) [][]T {
	var batches [][]T
	first, bytes := 0, 0
	for i := range all {
		n := size(&all[i])
		if i > first && (i-first == tripEntries || bytes+n > tripBytes) {
			batches = append(batches, all[first:i])
			first, bytes = i, 0
		}
		bytes += n
	}
	if first < len(all) {
		batches = append(batches, all[first:])
	}
	return batches
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

// wanted is an entry to be read.
type wanted struct {
	id    string
	place string // where it must be still; empty for anywhere
	size  int
}

// fetch reads entries and hands each over by its number: dlq.ErrNotFound when
// it is not there.
func (s *Store) fetch(ctx context.Context, op string, all []wanted, take func(i int, entry dlq.Entry, err error)) {
	i := 0
	var failed error
	for _, batch := range trips(all, func(w *wanted) int { return w.size }) {
		var answers [][]any
		if failed == nil {
			ids := make([]string, len(batch))
			for k := range batch {
				ids[k] = batch[k].id
			}
			answers, failed = s.read(ctx, op, ids, recordFields[:])
		}
		for k := range batch {
			if failed != nil {
				take(i, dlq.Entry{}, failed)
			} else {
				entry, place, found, err := parse(batch[k].id, answers[k])
				if !found || batch[k].place != "" && batch[k].place != place {
					entry, err = dlq.Entry{}, dlq.ErrNotFound
				}
				take(i, entry, err)
			}
			i++
		}
	}
}

// heads reads what filters look at.
func (s *Store) heads(ctx context.Context, op string, ids []string) ([]head, error) {
	answers, err := s.read(ctx, op, ids, headFields[:])
	if err != nil {
		return nil, err
	}
	heads := make([]head, len(ids))
	for i, id := range ids {
		// One that is damaged is found out when it is read.
		heads[i], _ = parseHead(id, answers[i])
	}
	return heads, nil
}

// read reads some fields of entries in one round trip.
func (s *Store) read(ctx context.Context, op string, ids []string, fields []string) ([][]any, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = s.keys.entry(id)
	}
	return exchange(ctx, s, op, func(ctx context.Context) ([][]any, error) {
		commands := make([]*redis.SliceCmd, len(names))
		_, err := s.client.Pipelined(ctx, func(pipeline redis.Pipeliner) error {
			for i, name := range names {
				commands[i] = pipeline.HMGet(ctx, name, fields...)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		answers := make([][]any, len(names))
		for i, command := range commands {
			answers[i] = command.Val()
		}
		return answers, nil
	})
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
		answers, err := s.run(ctx, "claim", s.scripts.claim, batch, claim.Token, unixMicro(claim.Now), unixMicro(until))
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

// change runs the script of each batch, which answers a number for each entry.
func (s *Store) change(ctx context.Context, op string, ids []string, step func(batch []string) (*redis.Script, []any)) []error {
	errs := make([]error, len(ids))
	if err := s.usable(ctx); err != nil {
		fill(errs, err)
		return errs
	}
	for from := 0; from < len(ids); from += tripEntries {
		batch := ids[from:min(from+tripEntries, len(ids))]
		script, arguments := step(batch)
		answers, err := s.run(ctx, op, script, batch, arguments...)
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

// run runs a script on entries. What it answers is nil for a script that
// answers no list of numbers.
func (s *Store) run(ctx context.Context, op string, script *redis.Script, ids []string, arguments ...any) ([]int64, error) {
	names := s.keys.with(ids)
	return exchange(ctx, s, op, func(ctx context.Context) ([]int64, error) {
		command := script.Run(ctx, s.client, names, arguments...)
		if err := command.Err(); err != nil {
			return nil, err
		}
		numbers, _ := command.Int64Slice()
		return numbers, nil
	})
}

// exchange does one round trip, and waits for it no longer than for ctx's end or
// Config.Timeout, whatever the client does. So do may still run when the caller
// has its slices back, and must not use them.
func exchange[T any](ctx context.Context, s *Store, op string, do func(ctx context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	bounded, cancel := context.WithTimeout(ctx, s.config.Timeout)
	answered := make(chan answer, 1)
	go func() {
		defer cancel()
		value, err := do(bounded)
		answered <- answer{value: value, err: err}
	}()
	select {
	case got := <-answered:
		return got.value, unavailable(ctx, op, got.err)
	case <-bounded.Done():
	}
	select {
	case got := <-answered: // both at once: what is known is better
		return got.value, unavailable(ctx, op, got.err)
	default:
		return none, unavailable(ctx, op, bounded.Err())
	}
}

// errorOf reads a script's answer for one entry.
func errorOf(op string, answer int64) error {
	switch answer {
	case answerDone:
		return nil
	case answerMissing:
		return dlq.ErrNotFound
	case answerClaimed:
		return dlq.ErrClaimed
	case answerLost:
		return dlq.ErrClaimLost
	case answerReplaced:
		return dlq.ErrReplaced
	}
	return unexpected(op)
}

func unexpected(op string) error {
	return &UnavailableError{Op: op, Err: errors.New("it answers something unexpected")}
}

func unixMicro(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }
