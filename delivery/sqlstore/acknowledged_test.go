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

// What churn tells of an entry or a key.
const (
	isThere   = "there"   // it was put, or completed
	isGone    = "gone"    // it was removed
	isUnknown = "unknown" // something was begun whose end did not come
)

// churn puts two entries, of which it claims and removes one, and claims a key
// and completes it. It tells of each step before it is begun, and when it was
// acknowledged.
func churn(store *sqlstore.Store, name string, tell func(what, id string)) {
	ctx := context.Background()
	letters, keys := store.DeadLetters(), store.Keys()
	stays, goes := letter("letter "+name+" stays", 0), letter("letter "+name+" goes", 0)
	if letters.Put(ctx, stays, goes) == nil {
		tell(isThere, stays.ID)
		tell(isThere, goes.ID)
		if _, errs := letters.Claim(ctx, dlq.Claim{Token: name, Now: died, Lease: lease}, goes.ID); errors.Join(errs...) == nil {
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

// ledger is what is known, by ID.
type ledger struct {
	mu    sync.Mutex
	known map[string]string
}

func (l *ledger) tell(what, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = make(map[string]string)
	}
	l.known[id] = what
}

// check compares the store with what is known.
func (l *ledger) check(t require.TestingT, store *sqlstore.Store) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there := make(map[string]bool)
	for _, id := range kept(t, store.DeadLetters()) {
		there[id] = true
	}
	for id, what := range l.known {
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
	require.NotEmpty(t, l.known)
}
