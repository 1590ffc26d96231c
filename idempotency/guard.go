package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// GuardConfig says how long a Guard holds keys. The zero value is usable.
type GuardConfig struct {
	// Lease is how long a key stays claimed after the last renewal, and so for how
	// long a crash blocks it. It is renewed while the work runs, so it need not be as
	// long as the work. At least 10 ms. Default 60 s.
	Lease time.Duration
	// Window is how long a key stays done, and how much longer than its delay a
	// fence stays. It has to be longer than the time over which copies of one message
	// may arrive, and longer than Lease. Default 24 h.
	Window time.Duration
	// Logger gets a warning for each lease that is lost or could not be renewed, and
	// for each claim that is completed late or could not be released. IDs of keys are
	// not logged. Default: nothing is logged.
	Logger *slog.Logger
}

// minLease bounds GuardConfig.Lease: on a busy machine a shorter lease would be lost
// to scheduling alone.
const minLease = 10 * time.Millisecond

const (
	defaultLease  = 60 * time.Second
	defaultWindow = 24 * time.Hour
	// settleTimeout bounds how long Do waits for its claim to be settled.
	settleTimeout = 5 * time.Second
	// settlePause is the time between two tries of that.
	settlePause = 100 * time.Millisecond
)

func (c GuardConfig) withDefaults() GuardConfig {
	if c.Lease == 0 {
		c.Lease = defaultLease
	}
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c GuardConfig) validate() error {
	var faults []error
	if c.Lease < minLease {
		faults = append(faults, fmt.Errorf("%w: Lease is %v, want at least %v", ErrConfig, c.Lease, minLease))
	}
	if c.Window <= c.Lease {
		faults = append(faults, fmt.Errorf("%w: Window is %v, want more than Lease, which is %v", ErrConfig, c.Window, c.Lease))
	}
	return errors.Join(faults...)
}

// Guard claims keys in a Store and keeps their leases alive. Any number of
// goroutines may use it at once. It has no goroutine of its own and need not be
// closed.
type Guard struct {
	store    Store
	config   GuardConfig
	fault    error
	local    bool      // the store is a Memory, which answers at once
	made     time.Time // what now counts from
	tokens   tokens
	orphans  orphans
	renewals renewals
}

// NewGuard returns a Guard on store. It doesn't fail: a faulty config or store, or a
// nil store, is returned by Err, and by every use.
func NewGuard(store Store, config GuardConfig) *Guard {
	config = config.withDefaults()
	faults := []error{config.validate()}
	if store == nil {
		faults = append(faults, fmt.Errorf("%w: store is nil", ErrConfig))
	} else if faulty, ok := AbilityOf[interface{ Err() error }](store); ok {
		faults = append(faults, faulty.Err())
	}
	_, local := store.(*Memory)
	guard := &Guard{
		store:    store,
		config:   config,
		fault:    errors.Join(faults...),
		local:    local,
		made:     time.Now(),
		renewals: renewals{lease: config.Lease},
	}
	guard.tokens.init(local)
	return guard
}

// Err is nil, or says why the Guard can't be used; it matches ErrConfig, or is what
// the store's own Err method returned to NewGuard.
func (g *Guard) Err() error {
	if g == nil || g.store == nil && g.fault == nil {
		return fmt.Errorf("%w: Guard is empty, want one from NewGuard", ErrConfig)
	}
	return g.fault
}

// Claim asks for key on behalf of an attempt (0 is the first run).
//
// On success the work has to run with the returned context, and the Claim has to be
// settled: by Complete, Schedule or Release. Until then the lease is renewed each
// time that a third of it is over. When the lease is lost all the same, the returned
// context is cancelled with the cause ErrLost; when the claim is settled, with the
// cause ErrSettled.
//
// A claim is given up without settling it by the end of ctx: renewal stops, and the
// lease ends by itself. So work that may go on for a while after its context has
// ended needs a ctx that ends later.
//
// Otherwise Claim returns ctx, a nil Claim and an error: ErrBusy, a *DuplicateError,
// one that matches ErrUnavailable, a context's own, or ErrConfig.
func (g *Guard) Claim(ctx context.Context, key Key, attempt int) (context.Context, *Claim, error) {
	if err := g.usable(ctx); err != nil {
		return ctx, nil, err
	}
	claimCtx, cancel := context.WithCancelCause(ctx)
	claim, err := g.Hold(ctx, key, "", attempt, cancel)
	if err != nil {
		cancel(nil)
		return ctx, nil, err
	}
	return claimCtx, claim, nil
}

// Hold is Claim for callers that make the work's context themselves. It makes none.
// Instead it calls ended once, when the claim is lost or settled, with the cause
// ErrLost or ErrSettled. ended may be called by any goroutine and has to return at
// once. It is not called when ctx ends.
//
// Where several pieces of work share keys, holder names the one that claims, so
// that the others learn by DuplicateError.Of whose duplicates they are. It may be
// empty.
func (g *Guard) Hold(ctx context.Context, key Key, holder string, attempt int, ended func(cause error)) (*Claim, error) {
	if err := g.usable(ctx); err != nil {
		return nil, err
	}
	if ended == nil {
		return nil, fmt.Errorf("%w: ended is nil", ErrInvalid)
	}
	name, token := g.nextToken(key, holder)
	sent := g.now()
	claim, err := g.claim(ctx, key.Scope, name, token, attempt, sent, ended)
	if claim == nil && outcomeUnknown(err) {
		g.orphans.put(name, token, sent.Add(g.config.Lease))
	}
	return claim, err
}

// nextToken is key's string, and the token to claim it with: that of an earlier claim
// which was never answered, or a new one.
func (g *Guard) nextToken(key Key, holder string) (name, token string) {
	name, token = g.tokens.next(key, holder)
	if orphaned, ok := g.orphans.take(name, holder); ok {
		token = orphaned
	}
	return name, token
}

// ClaimAs is Claim with a token of the caller's choice, which others find as the
// Holder of their DuplicateError. A key that is leased to token already is claimed
// once more, so two holders must not use one token at once.
func (g *Guard) ClaimAs(ctx context.Context, key Key, token string, attempt int) (context.Context, *Claim, error) {
	if err := g.usable(ctx); err != nil {
		return ctx, nil, err
	}
	claimCtx, cancel := context.WithCancelCause(ctx)
	claim, err := g.claim(ctx, key.Scope, key.String(), token, attempt, g.now(), cancel)
	if err != nil {
		cancel(nil)
		return ctx, nil, err
	}
	return claimCtx, claim, nil
}

// Do claims key, runs fn and completes the claim when fn returns nil. When fn
// returns an error, panics or ends its goroutine, the claim is released, so that the
// work may be tried again at once. Do returns the error of Claim or of fn. When fn
// returned nil but the claim could not be completed, the error matches ErrUnrecorded,
// and ErrLost or ErrUnavailable for the reason. Do tries to settle the claim for a
// few seconds even if ctx has ended.
func (g *Guard) Do(ctx context.Context, key Key, fn func(ctx context.Context) error) error {
	if fn == nil {
		return fmt.Errorf("%w: fn is nil", ErrInvalid)
	}
	if err := g.usable(ctx); err != nil {
		return err
	}
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	workCtx, claim, err := g.Claim(ctx, key, 0)
	if err != nil {
		return err
	}
	succeeded := false
	defer func() {
		if !succeeded {
			g.release(ctx, claim)
		}
	}()
	if err := fn(workCtx); err != nil {
		return err
	}
	succeeded = true
	if err := g.complete(ctx, claim); err != nil {
		return fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	return nil
}

// complete tries again while the store is away: work that is not completed runs
// twice. Its error matches no context's, because the caller's does not bound it.
func (g *Guard) complete(ctx context.Context, claim *Claim) error {
	ctx, cancel := g.settleContext(ctx)
	defer cancel()
	var away error // the last failure of the store
	for {
		err := claim.Complete(ctx)
		switch ended := ctx.Err(); {
		case errors.Is(err, ErrUnavailable):
			away = err
		case ended == nil || !errors.Is(err, ended):
			return err
		case away == nil:
			return Unavailable(context.Background(), "complete", err)
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return away
		}
	}
}

func (g *Guard) release(ctx context.Context, claim *Claim) {
	ctx, cancel := g.settleContext(ctx)
	defer cancel()
	if err := claim.Release(ctx); err != nil {
		g.config.Logger.WarnContext(ctx, "idempotency claim not released", "scope", claim.scope, "error", err)
	}
}

func (g *Guard) settleContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), min(settleTimeout, g.config.Lease))
}

func (g *Guard) usable(ctx context.Context) error {
	if err := g.Err(); err != nil {
		return err
	}
	if ctx == nil {
		return fmt.Errorf("%w: context is nil", ErrInvalid)
	}
	return nil
}

// now is for measuring time. It reads the monotonic clock only, which costs half of
// time.Now.
func (g *Guard) now() time.Time { return g.made.Add(time.Since(g.made)) }

// claim asks the store. The lease counts from start, which is before the command is
// sent, so that it never ends here after it has ended in the store.
func (g *Guard) claim(ctx context.Context, scope, name, token string, attempt int, start time.Time, ended func(error)) (*Claim, error) {
	answer, err := g.store.Claim(ctx, name, token, attempt, g.config.Lease)
	if err != nil {
		return nil, Unavailable(ctx, "claim", err)
	}
	switch answer.State {
	case Claimed:
		if !g.local && time.Since(start) >= g.config.Lease {
			return nil, &UnavailableError{Op: "claim", Err: fmt.Errorf("%w: the answer took longer than the lease", ErrLost)}
		}
		claim := &Claim{guard: g, scope: scope, key: name, token: token, ctx: ctx, ended: ended}
		g.renewals.add(claim, start)
		return claim, nil
	case Busy:
		return nil, ErrBusy
	case Done:
		return nil, &DuplicateError{Holder: answer.Holder, Of: holderOf(answer.Holder)}
	case Stale:
		return nil, &DuplicateError{Holder: answer.Holder, Of: holderOf(answer.Holder), Stale: true}
	}
	return nil, &UnavailableError{Op: "claim", Err: fmt.Errorf("store answered %v, which is no answer", answer.State)}
}

// outcomeUnknown says whether a Claim that returned err may have left a lease
// behind.
func outcomeUnknown(err error) bool {
	return err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrDuplicate) && !errors.Is(err, ErrInvalid)
}
