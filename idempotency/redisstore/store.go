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
)

// Store keeps idempotency keys in Redis. Any number of goroutines may use it at
// once. Close ends it; one that is idle holds nothing but its client, which stays
// the host's.
type Store struct {
	client  redis.UniversalClient
	config  Config
	fault   error
	scripts scripts
	batcher *batcher
	// scriptedClaims is set once a server did not understand a native claim.
	scriptedClaims atomic.Bool
	// singleKeys is set where keys may be in different slots, and once a server
	// refused a script with more than one.
	singleKeys atomic.Bool
	// checked is set once all masters have been found not to evict keys. checking
	// lets one at a time find out.
	checked  atomic.Bool
	checking chan struct{}
}

var _ idempotency.Store = (*Store)(nil)

// New returns a Store on client, which may be a client of a single server, of
// Sentinel, or of a cluster. It does not talk to Redis yet. A fault in config or
// a nil client is kept: Err tells it, and every use returns it.
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

// Err tells what is wrong with the configuration; nil when nothing is.
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
	return settled(s.do(ctx, s.newCall(s.scripts.renew, key, token, 0, lease)))
}

// Complete implements idempotency.Store.
func (s *Store) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	if err := s.usable(ctx, "complete", key, token, window); err != nil {
		return 0, err
	}
	c := s.newCall(s.scripts.complete, key, token, 0, window)
	if !s.singleKeys.Load() {
		c.form = jointByHash
	}
	got, err := s.do(ctx, c)
	if err == nil && got.number == answerLate {
		return idempotency.Late, nil
	}
	return idempotency.InTime, settled(got, err)
}

// Schedule implements idempotency.Store.
func (s *Store) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	if err := s.usable(ctx, "schedule", key, token, ttl); err != nil {
		return err
	}
	return settled(s.do(ctx, s.newCall(s.scripts.schedule, key, token, attempt, ttl)))
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, key, token string) error {
	if err := s.usable(ctx, "release", key, token, 1); err != nil {
		return err
	}
	return settled(s.do(ctx, s.newCall(s.scripts.release, key, token, 0, 0)))
}

// Close fails the calls that wait, waits for those on their way, and ends the
// Store: later calls match idempotency.ErrClosed. The client stays open. It
// returns an error when the client does not come back within twice the Timeout.
// Closing again returns the same.
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
	return got, idempotency.Unavailable(ctx, c.script.op, got.err)
}

// send sends a batch as one pipeline. What the server does not understand,
// because it is old, or new to our scripts, or was told to forget them, is sent
// once more in the next form; the rest is not.
func (s *Store) send(batch []*call) {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Timeout)
	defer cancel()
	if err := s.ensureChecked(ctx); err != nil {
		for _, c := range batch {
			c.answered <- answer{err: err}
		}
		return
	}
	for len(batch) > 0 {
		batch = s.exec(ctx, batch)
	}
}

// exec sends calls and answers them, but for those that need another form, which
// it returns. Calls that nobody waits for any more are left out.
func (s *Store) exec(ctx context.Context, calls []*call) (again []*call) {
	parcels := pack(calls, s.scripts.completeMany)
	commands := make([]redis.Cmder, len(parcels))
	for i, p := range parcels {
		commands[i] = p.command
	}
	pipeline := s.client.Pipeline()
	_ = pipeline.BatchProcess(ctx, commands...) // only queues
	_, _ = pipeline.Exec(ctx)                   // each command has its own error
	for _, p := range parcels {
		p.open(func(c *call, reply any, err error) {
			got, ok := c.read(reply, err)
			if ok {
				c.answered <- got
				return
			}
			s.refused(c.form, err)
			c.form = c.form.next(err)
			again = append(again, c)
		})
	}
	return again
}

// refused notes what a server can't do at all.
func (s *Store) refused(form form, err error) {
	switch {
	case err == nil || isMissing(err):
	case form == native && isSyntaxError(err):
		s.scriptedClaims.Store(true)
	case form.joint() && refusesJoint(err):
		s.singleKeys.Store(true)
	}
}

// settled reads the answer of the scripts other than claim.
func settled(got answer, err error) error {
	if err == nil && got.number == answerLost {
		return idempotency.ErrLost
	}
	return err
}
