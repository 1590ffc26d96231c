package idempotency

import (
	"context"
	"fmt"
	"strconv"
)

// Start says in the store that work was started. It is not renewed and stays for the
// guard's Window, so that it outlives the process: one that is found was left by work
// that came to no end, unless it goes on elsewhere.
type Start struct {
	guard *Guard
	key   string
	token string
}

// Start keeps that an attempt of the work is started for the nth time, from 1 on.
// ErrBusy says that the nth start is kept already. Other errors are those of Claim. The
// start may be kept all the same then, and the next such Start of this Guard finds it to
// be its own.
//
// It goes with a Claim of the key, which keeps others from starting the same. Since
// starts are counted in keys of their own, the Claim knows nothing of them. A Memory
// forgets them with the process.
func (g *Guard) Start(ctx context.Context, key Key, attempt, n int) (*Start, error) {
	if err := g.usable(ctx); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("%w: start is number %d, want at least 1", ErrInvalid, n)
	}
	key.Scope += "/start/" + strconv.Itoa(attempt) + "/" + strconv.Itoa(n)
	name, token := g.nextToken(key, "")
	sent := g.now()
	answer, err := g.store.Claim(ctx, name, token, 0, g.config.Window)
	switch {
	case err != nil:
		err = Unavailable(ctx, "start", err)
		if outcomeUnknown(err) {
			g.orphans.put(name, token, sent.Add(g.config.Window))
		}
		return nil, err
	case answer.State != Claimed:
		return nil, ErrBusy
	}
	return &Start{guard: g, key: name, token: token}, nil
}

// Release makes the start as if it had not been, because the work came to an end or
// was given back in order. The error matches ErrUnavailable or is a context's own.
func (s *Start) Release(ctx context.Context) error {
	return Unavailable(ctx, "release", s.guard.store.Release(ctx, s.key, s.token))
}
