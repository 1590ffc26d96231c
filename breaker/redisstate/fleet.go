package redisstate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/breaker"
)

// maxBackoff bounds how long a Fleet waits before it tries Redis again.
const maxBackoff = 15 * time.Second

// Fleet shares the states of one process's breakers with other processes, and
// lets an operator see and force them; see the package comment. Make it with
// New. It is safe for concurrent use.
type Fleet struct {
	client redis.UniversalClient
	config Config
	fault  error
	sha    string
	token  string // of leases

	running atomic.Bool
	kick    chan struct{} // a change that should be told at once
	pass    chan struct{} // held by the pass that is under way
	wire    chan struct{} // held by a pass's exchange until the client is done

	mu      sync.Mutex
	members []*member
	names   map[string]bool
	failing bool // the last pass failed for some breaker
	away    bool // and for all
}

// New makes a Fleet that uses the client. The client stays the caller's, who
// closes it after Run has returned. New doesn't fail and doesn't connect: a
// faulty config is returned by Err, and by every use.
func New(client redis.UniversalClient, config Config) *Fleet {
	config = config.withDefaults()
	fault := config.validate()
	if isNil(client) {
		fault = errors.Join(fmt.Errorf("%w: client is nil, want one of go-redis", ErrConfig), fault)
	}
	return &Fleet{
		client: client,
		config: config,
		fault:  fault,
		sha:    digest(),
		token:  rand.Text(),
		kick:   make(chan struct{}, 1),
		pass:   make(chan struct{}, 1),
		wire:   make(chan struct{}, 1),
		names:  make(map[string]bool),
	}
}

// isNil also knows a nil *redis.Client.
func isNil(client redis.UniversalClient) bool {
	if client == nil {
		return true
	}
	value := reflect.ValueOf(client)
	return value.Kind() == reflect.Pointer && value.IsNil()
}

// Err is nil, or says why the Fleet can't be used; it matches ErrConfig.
func (f *Fleet) Err() error {
	switch {
	case f == nil:
		return fmt.Errorf("%w: Fleet is nil, want one made by New", ErrConfig)
	case f.fault != nil:
		return f.fault
	case f.client == nil:
		return fmt.Errorf("%w: Fleet is a zero value, want one made by New", ErrConfig)
	}
	return nil
}

// Share has Run share the breakers, each under its name with those of the same
// name in other instances, which should have the same Config. A breaker without
// a name, one of a breaker.Set (which may be forgotten and made anew at any
// time), one that can't be used, and a second one of a name are refused with an
// error that matches ErrConfig and names them all; then none is shared.
//
// It may be called before Run and during it. A breaker is shared for good.
func (f *Fleet) Share(breakers ...*breaker.Breaker) error {
	if err := f.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.shareable(breakers); err != nil {
		return err
	}
	for _, b := range breakers {
		m := &member{breaker: b, key: f.key(b.Name())}
		f.members = append(f.members, m)
		f.names[b.Name()] = true
		b.Watch(func(change breaker.Change) {
			if m.changed(change) {
				f.hurry()
			}
		})
	}
	return nil
}

// shareable says what is wrong with breakers. mu is held.
func (f *Fleet) shareable(breakers []*breaker.Breaker) error {
	var faults []error
	fault := func(i int, problem string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: breaker %d "+problem, append([]any{ErrConfig, i + 1}, args...)...))
	}
	names := make(map[string]bool)
	for i, b := range breakers {
		switch name := b.Name(); {
		case b.Err() != nil:
			fault(i, "can't be used: %w", b.Err())
		case b.Key() != "":
			fault(i, "has Key %q, want one outside of a Set", b.Key())
		case name == "":
			fault(i, "has no Name, want the one it is shared by")
		case len(name) > maxText:
			fault(i, "has a Name of %d bytes, want at most %d", len(name), maxText)
		case names[name] || f.names[name]:
			fault(i, "is a second one of Name %q, want one", name)
		}
		names[b.Name()] = true
	}
	return errors.Join(faults...)
}

func (f *Fleet) key(name string) string { return f.config.Prefix + name }

// hurry has the next pass made soon.
func (f *Fleet) hurry() {
	select {
	case f.kick <- struct{}{}:
	default: // one is due already
	}
}

// Run shares the breakers until ctx ends, and returns nil then, when the exchange
// that is under way is over, which Config.Timeout bounds. While Redis is
// away it tries again after Every, and then after longer and longer, up to 15 s
// or Every if that is longer. What ends it early is ErrConfig, or ErrRunning
// for the second of two at a time. It may be called again after it has returned.
//
// When it returns, the breakers go on by themselves from the state they are in,
// a force included, and a lease to probe is given back.
func (f *Fleet) Run(ctx context.Context) error {
	if err := f.Err(); err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	if !f.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer f.running.Store(false)
	defer f.leave()
	for failures := 0; ctx.Err() == nil; {
		// A pass is not broken off: Redis may just have granted a lease, which could
		// not be given back without knowing of it.
		if err := f.Sync(context.WithoutCancel(ctx)); err == nil || !f.isAway() {
			failures = 0
		} else {
			failures++
		}
		f.pause(ctx, failures)
	}
	return nil
}

// pause waits for the next pass, or for ctx's end.
func (f *Fleet) pause(ctx context.Context, failures int) {
	wait, kick := f.config.Every, f.kick
	if failures > 0 {
		// As nothing can be told, there is no hurry.
		wait, kick = backoff(f.config.Every, failures), nil
	}
	gap := f.config.Every / 10
	if sleep(ctx, nil, gap) {
		sleep(ctx, kick, wait-gap)
	}
}

// sleep waits for d, or for kick, and says whether ctx goes on.
func sleep(ctx context.Context, kick <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// backoff doubles with each failure after the first, less up to a quarter by
// chance, so that instances don't come all at once.
func backoff(every time.Duration, failures int) time.Duration {
	wait := every
	for range failures - 1 {
		if wait >= maxBackoff {
			break
		}
		wait = min(2*wait, maxBackoff)
	}
	return wait - mathrand.N(wait/4)
}

// Sync does once what Run does again and again: it writes what happened to the
// breakers here, and reads and follows what happened elsewhere. Called before
// the first Allow it has an instance that starts know of a force or of an open
// state from its first call on. It returns an error that matches ErrUnavailable
// if that failed for any breaker, or ctx's own error, bare.
func (f *Fleet) Sync(ctx context.Context) error {
	if err := f.Err(); err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	select {
	case f.pass <- struct{}{}:
		defer func() { <-f.pass }()
	case <-ctx.Done():
		return ctx.Err()
	}
	members := f.snapshot()
	if len(members) == 0 {
		return ctx.Err()
	}
	sent := time.Now()
	commands := make([]command, len(members))
	for i, m := range members {
		commands[i] = m.next(f, sent)
	}
	answers, err := f.ask(ctx, commands)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var first error
	failed := 0
	for i, m := range members {
		fault := err
		if fault == nil {
			fault = answers[i].err
		}
		if fault != nil {
			m.alone()
			if failed++; first == nil {
				first = fault
			}
			continue
		}
		m.follow(f, commands[i], answers[i].record, sent)
	}
	f.note(ctx, failed, len(members), first)
	return unavailable(ctx, first)
}

// ask is one exchange of a pass, within Timeout. A client that doesn't heed
// contexts may go on longer; the next pass waits for it.
func (f *Fleet) ask(ctx context.Context, commands []command) ([]answer, error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	select {
	case f.wire <- struct{}{}:
		return f.exchange(ctx, commands, func() { <-f.wire })
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *Fleet) snapshot() []*member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members[:len(f.members):len(f.members)]
}

// note tells when Redis goes away and comes back.
func (f *Fleet) note(ctx context.Context, failed, of int, err error) {
	f.mu.Lock()
	before := f.failing
	f.failing, f.away = failed > 0, failed == of
	f.mu.Unlock()
	switch {
	case failed > 0 && !before:
		f.config.Logger.LogAttrs(ctx, slog.LevelWarn, "breakers are not shared, Redis is away",
			slog.Int("breakers", failed), slog.Any("error", unavailable(ctx, err)))
	case failed == 0 && before:
		f.config.Logger.LogAttrs(ctx, slog.LevelInfo, "breakers are shared again, Redis is back")
	}
}

func (f *Fleet) isAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// leave has every breaker go on by itself, and lets others probe.
func (f *Fleet) leave() {
	f.pass <- struct{}{}
	defer func() { <-f.pass }()
	var commands []command
	for _, m := range f.snapshot() {
		if m.leased {
			commands = append(commands, command{key: m.key, op: opLeave, token: f.token})
		}
		m.alone()
	}
	if len(commands) > 0 {
		// If it fails the leases end by themselves.
		_, _ = f.ask(context.Background(), commands)
	}
	f.wire <- struct{}{} // no exchange outlives Run
	<-f.wire
}
