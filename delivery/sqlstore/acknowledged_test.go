package sqlstore_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
)

// What putAndComplete reports of an entry or a key.
const (
	isThere   = "there"   // it was put, or completed
	isGone    = "gone"    // it was removed
	isUnknown = "unknown" // a step was begun, and not acknowledged
)

// putAndComplete puts two entries, claims and removes one of them, and claims
// and completes a key. It reports each step before it begins, and when it was
// acknowledged.
func putAndComplete(store *sqlstore.Store, name string, tell func(what, id string)) {
	ctx := context.Background()
	letters, keys := store.DeadLetters(), store.Keys()
	stays, goes := deadEntry("letter "+name+" stays", 0), deadEntry("letter "+name+" goes", 0)
	if letters.Put(ctx, stays, goes) == nil {
		tell(isThere, stays.ID)
		tell(isThere, goes.ID)
		if _, errs := letters.Claim(ctx, dlq.Claim{Token: name, Now: firstDeadAt, Lease: lease}, goes.ID); errors.Join(errs...) == nil {
			tell(isUnknown, goes.ID)
			if errors.Join(letters.Remove(ctx, name, goes.ID)...) == nil {
				tell(isGone, goes.ID)
			}
		}
	}
	key := "key " + name
	answer, err := keys.Claim(ctx, key, name, 0, time.Hour)
	if err != nil || answer.State != idempotency.Claimed {
		return
	}
	if _, err := keys.Complete(ctx, key, name, time.Hour); err == nil {
		tell(isThere, key)
	}
}

// acknowledged is what is known of entries and keys, by ID.
type acknowledged struct {
	mu    sync.Mutex
	known map[string]string
}

func (a *acknowledged) tell(what, id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = make(map[string]string)
	}
	a.known[id] = what
}

// check compares the store with what is known.
func (a *acknowledged) check(t require.TestingT, store *sqlstore.Store) {
	a.mu.Lock()
	defer a.mu.Unlock()
	there := make(map[string]bool)
	for _, id := range entryIDs(t, store.DeadLetters()) {
		there[id] = true
	}
	for id, what := range a.known {
		switch {
		case what == isUnknown:
		case strings.HasPrefix(id, "key "):
			answer, err := store.Keys().Claim(context.Background(), id, "somebody else", 0, time.Millisecond)
			require.NoError(t, err)
			require.Equal(t, idempotency.Done, answer.State, id)
		default:
			require.Equal(t, what == isThere, there[id], "%s should be %s", id, what)
		}
	}
	require.NotEmpty(t, a.known)
}
