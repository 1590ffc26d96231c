package redisstore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry/lastfault"
)

// Store keeps idempotency keys in Redis. Any number of goroutines may use it at
// once. Close ends it. A Store that is idle has no goroutine and holds nothing but
// its client, which stays the host's.
type Store struct {
	client  redis.UniversalClient
	config  Config
	fault   error
	scripts scripts
	batcher *batcher
	// scriptedClaims is set once a server has not understood a native claim.
	scriptedClaims atomic.Bool
	// singleKeys is set where keys may be in different slots, and once a server has
	// refused a script with more than one.
	singleKeys atomic.Bool
	// checked is set once all masters have been found not to evict keys. checking
	// lets one at a time find out.
	checked  atomic.Bool
	checking chan struct{}
	// lastFault is noted of every pipeline, Ping and Check.
	lastFault lastfault.Fault
}

var _ idempotency.Store = (*Store)(nil)

// New returns a Store on client, which may be a client of a single server, of
// Sentinel, or of a cluster. It does not talk to Redis yet. It doesn't fail: a
// faulty config or a nil client is returned by Err, and by every use.
func New(client redis.UniversalClient, config Config) *Store {
	config = config.withDefaults()
	faults := []error{config.validate()}
	if missing(client) {
		faults = append(faults, fmt.Errorf("%w: client is nil", ErrConfig))
	}
	s := &Store{
		client:   client,
		config:   config,
		fault:    errors.Join(faults...),
		scripts:  newScripts(),
		checking: make(chan struct{}, 1),
	}
	if s.fault == nil {
		s.batcher = newBatcher(config, s.send)
		_, oneServer := client.(*redis.Client)
		s.singleKeys.Store(!oneServer)
	}
	return s
}

// missing also finds a nil *redis.Client, which is not a nil interface.
func missing(client redis.UniversalClient) bool {
	if client == nil {
		return true
	}
	value := reflect.ValueOf(client)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

// Err is nil, or says why the Store can't be used; it matches ErrConfig.
func (s *Store) Err() error {
	if s == nil || s.batcher == nil && s.fault == nil {
		return fmt.Errorf("%w: Store is empty, want one from New", ErrConfig)
	}
	return s.fault
}

// Claim implements idempotency.Store.
func (s *Store) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	if err := s.usable(ctx, "claim", key, token, lease); err != nil {
		return idempotency.Answer{}, err
	}
	c := s.newCall(s.scripts.claim, key, token, attempt, lease)
	if !s.scriptedClaims.Load() {
		c.makeNative()
	}
	got, err := s.do(ctx, c)
	return got.found, err
}

// Renew implements idempotency.Store.
func (s *Store) Renew(ctx context.Context, key, token string, lease time.Duration) error {
	if err := s.usable(ctx, "renew", key, token, lease); err != nil {
		return err
	}
	return lostOr(s.do(ctx, s.newCall(s.scripts.renew, key, token, 0, lease)))
}

// Complete implements idempotency.Store.
func (s *Store) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	if err := s.usable(ctx, "complete", key, token, window); err != nil {
		return 0, err
	}
	c := s.newCall(s.scripts.complete, key, token, 0, window)
	if !s.singleKeys.Load() {
		c.form = manyByHash
	}
	got, err := s.do(ctx, c)
	if err == nil && got.number == answerLate {
		return idempotency.Late, nil
	}
	return idempotency.InTime, lostOr(got, err)
}

// Schedule implements idempotency.Store.
func (s *Store) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	if err := s.usable(ctx, "schedule", key, token, ttl); err != nil {
		return err
	}
	return lostOr(s.do(ctx, s.newCall(s.scripts.schedule, key, token, attempt, ttl)))
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, key, token string) error {
	if err := s.usable(ctx, "release", key, token, 1); err != nil {
		return err
	}
	return lostOr(s.do(ctx, s.newCall(s.scripts.release, key, token, 0, 0)))
}

// Close ends the Store: it fails the calls that wait, waits for those in flight, and
// later calls fail too, with an error that matches idempotency.ErrClosed. The client
// stays open. Close returns an error when the client has not answered within twice
// the Timeout. Closing again waits in the same way.
func (s *Store) Close() error {
	if s == nil || s.batcher == nil {
		return nil // it never worked
	}
	return s.batcher.close(2 * s.config.Timeout)
}

func (s *Store) usable(ctx context.Context, op, key, token string, duration time.Duration) error {
	if err := s.Err(); err != nil {
		return &idempotency.UnavailableError{Op: op, Err: err}
	}
	if err := idempotency.Validate(key, token, duration); err != nil {
		return err
	}
	if ctx == nil {
		return fmt.Errorf("%w: context is nil", idempotency.ErrInvalid)
	}
	return ctx.Err()
}

func (s *Store) newCall(script *script, key, token string, attempt int, duration time.Duration) *call {
	return newCall(script, s.config.Prefix+key, token, attempt, duration)
}

func (s *Store) do(ctx context.Context, c *call) (answer, error) {
	got := s.batcher.do(ctx, c)
	return got, idempotency.Unavailable(ctx, c.script.op, lastfault.With(ctx, got.err, s.lastFault.Err()))
}

// send sends a batch as one pipeline. What the server does not understand, because
// it is old, or does not have our scripts yet or any more, is sent once more in the
// next form; the rest is not.
func (s *Store) send(batch []*call) {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Timeout)
	defer cancel()
	if err := s.ensureChecked(ctx); err != nil {
		s.lastFault.Note(context.Background(), err) // no caller's context has ended a pipeline
		for _, c := range batch {
			c.answered <- answer{err: err}
		}
		return
	}
	for len(batch) > 0 {
		batch = s.exec(ctx, batch)
	}
}

// exec sends calls and answers them, except for those that need another form, which
// it returns.
func (s *Store) exec(ctx context.Context, calls []*call) (again []*call) {
	commands := commandsFor(calls, s.scripts.completeMany)
	if len(commands) == 0 {
		return nil
	}
	queue := make([]redis.Cmder, len(commands))
	for i, each := range commands {
		queue[i] = each.Cmd
	}
	pipeline := s.client.Pipeline()
	_ = pipeline.BatchProcess(ctx, queue...) // only queues
	_, _ = pipeline.Exec(ctx)                // each command has its own error
	s.lastFault.Note(context.Background(), firstFault(commands))
	for _, each := range commands {
		each.eachReply(func(c *call, reply any, err error) {
			got, ok := c.read(reply, err)
			if ok {
				c.answered <- got
				return
			}
			s.rememberRefusal(c.form, err)
			c.form = c.form.next(err)
			again = append(again, c)
		})
	}
	return again
}

// rememberRefusal keeps the store from trying again what a server can't do at all.
func (s *Store) rememberRefusal(form form, err error) {
	switch {
	case err == nil || isMissing(err):
	case form == native && isSyntaxError(err):
		s.scriptedClaims.Store(true)
	case form.hasManyKeys() && refusesManyKeys(err):
		s.singleKeys.Store(true)
	}
}

// lostOr is for the answers of the scripts other than claim.
func lostOr(got answer, err error) error {
	if err == nil && got.number == answerLost {
		return idempotency.ErrLost
	}
	return err
}
