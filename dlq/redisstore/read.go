package redisstore

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
)

// wanted is an entry to be read.
type wanted struct {
	id    string
	place string // that it must still have; empty for any
	size  int
}

// fetch reads entries and calls take with each, in order, and with its index in
// all. The error is dlq.ErrNotFound for an entry that does not exist.
func (s *Store) fetch(ctx context.Context, op string, all []wanted, take func(i int, entry dlq.Entry, err error)) {
	i := 0
	var failed error
	for _, batch := range roundTrips(all, func(w *wanted) int { return w.size }) {
		var answers [][]any
		if failed == nil {
			ids := make([]string, len(batch))
			for k := range batch {
				ids[k] = batch[k].id
			}
			answers, failed = s.read(ctx, op, ids, hashFields[:])
		}
		for k := range batch {
			if failed != nil {
				take(i, dlq.Entry{}, failed)
			} else {
				entry, place, found, err := parseEntry(batch[k].id, answers[k])
				if !found || batch[k].place != "" && batch[k].place != place {
					entry, err = dlq.Entry{}, dlq.ErrNotFound
				}
				take(i, entry, err)
			}
			i++
		}
	}
}

// heads reads of entries what filters look at.
func (s *Store) heads(ctx context.Context, op string, ids []string) ([]head, error) {
	answers, err := s.read(ctx, op, ids, headFields[:])
	if err != nil {
		return nil, err
	}
	heads := make([]head, len(ids))
	for i, id := range ids {
		// What is wrong with a damaged one is reported when all of it is read.
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
