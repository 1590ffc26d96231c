package redisstore

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
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
	reply, err := s.do(ctx, s.scripts.claim, key, token, strconv.Itoa(attempt), milliseconds(lease))
	if err != nil {
		return idempotency.Answer{}, err
	}
	value, _ := reply.(string)
	found, ok := parse(value, token)
	if !ok {
		return idempotency.Answer{}, unexpected("claim", reply)
	}
	return found, nil
}

// Renew implements idempotency.Store.
func (s *Store) Renew(ctx context.Context, key, token string, lease time.Duration) error {
	if err := s.usable(ctx, "renew", key, token, lease); err != nil {
		return err
	}
	reply, err := s.do(ctx, s.scripts.renew, key, token, milliseconds(lease))
	return settled("renew", reply, err)
}

// Complete implements idempotency.Store.
func (s *Store) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	if err := s.usable(ctx, "complete", key, token, window); err != nil {
		return 0, err
	}
	reply, err := s.do(ctx, s.scripts.complete, key, token, milliseconds(window))
	if err == nil && reply == int64(answerLate) {
		return idempotency.Late, nil
	}
	return idempotency.InTime, settled("complete", reply, err)
}

// Schedule implements idempotency.Store.
func (s *Store) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	if err := s.usable(ctx, "schedule", key, token, ttl); err != nil {
		return err
	}
	reply, err := s.do(ctx, s.scripts.schedule, key, token, strconv.Itoa(attempt), milliseconds(ttl))
	return settled("schedule", reply, err)
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, key, token string) error {
	if err := s.usable(ctx, "release", key, token, 1); err != nil {
		return err
	}
	reply, err := s.do(ctx, s.scripts.release, key, token)
	return settled("release", reply, err)
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

func (s *Store) do(ctx context.Context, script *script, key string, args ...any) (any, error) {
	reply, err := s.batcher.do(ctx, &call{
		script:   script,
		key:      s.config.Prefix + key,
		args:     args,
		answered: make(chan answer, 1),
	})
	return reply, idempotency.Unavailable(ctx, script.op, err)
}

// send sends a batch as one pipeline. What finds its script missing, because
// the server is new or was told to forget it, is sent once more with the script's
// source; the rest is not.
func (s *Store) send(batch []*call) {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Timeout)
	defer cancel()
	if err := s.ensureChecked(ctx); err != nil {
		for _, c := range batch {
			c.answer(nil, err)
		}
		return
	}
	missed := s.exec(ctx, batch, func(c *call) []any { return []any{"evalsha", c.script.sha} })
	if len(missed) > 0 {
		s.exec(ctx, missed, func(c *call) []any { return []any{"eval", c.script.source} })
	}
}

// exec sends calls and answers them, but for those whose script is missing,
// which it returns. Calls that nobody waits for any more are left out.
func (s *Store) exec(ctx context.Context, calls []*call, verb func(*call) []any) (missed []*call) {
	sent := make([]*call, 0, len(calls))
	commands := make([]*redis.Cmd, 0, len(calls))
	pipeline := s.client.Pipeline()
	for _, c := range calls {
		if c.abandoned.Load() {
			continue
		}
		args := append(verb(c), 1, c.key)
		command := redis.NewCmd(ctx, append(args, c.args...)...)
		command.SetFirstKeyPos(3)
		_ = pipeline.Process(ctx, command) // only queues
		sent = append(sent, c)
		commands = append(commands, command)
	}
	_, _ = pipeline.Exec(ctx) // each command has its own error
	for i, c := range sent {
		reply, err := commands[i].Result()
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			missed = append(missed, c)
			continue
		}
		c.answer(reply, err)
	}
	return missed
}

// parse reads the value that claim answers with.
func parse(value, token string) (idempotency.Answer, bool) {
	if value == "" {
		return idempotency.Answer{}, false
	}
	holder := value[1:]
	switch value[0] {
	case letterLeased:
		if holder == token {
			return idempotency.Answer{State: idempotency.Claimed, Holder: holder}, true
		}
		return idempotency.Answer{State: idempotency.Busy, Holder: holder}, true
	case letterDone:
		return idempotency.Answer{State: idempotency.Done, Holder: holder}, true
	case letterRetry:
		_, scheduler, found := strings.Cut(holder, ":")
		return idempotency.Answer{State: idempotency.Stale, Holder: scheduler}, found
	}
	return idempotency.Answer{}, false
}

// settled reads the answer of the scripts other than claim.
func settled(op string, reply any, err error) error {
	switch {
	case err != nil:
		return err
	case reply == int64(answerOK):
		return nil
	case reply == int64(answerLost):
		return idempotency.ErrLost
	}
	return unexpected(op, reply)
}

func unexpected(op string, reply any) error {
	return &idempotency.UnavailableError{Op: op, Err: fmt.Errorf("redisstore: Redis answered with an unexpected %T", reply)}
}

// milliseconds rounds up: Redis knows no shorter time, and none of nothing.
func milliseconds(d time.Duration) string {
	whole := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		whole++
	}
	return strconv.FormatInt(whole, 10)
}
