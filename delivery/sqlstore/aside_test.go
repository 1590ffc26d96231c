package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

// longer is a timeout that a store reaches only if it waits for a lock that the
// test does not release.
const longer = 10 * time.Minute

// dueRecord is a record that the token has claimed, and whose lease is over.
func dueRecord(id, token string) delivery.Record {
	r := pending(id)
	r.DueAt, r.ClaimedBy = r.CreatedAt.Add(-time.Minute), token
	return r
}

// lock locks rows in a transaction of somebody else's until release is called.
func lock(t *testing.T, statements ...string) (release func()) {
	t.Helper()
	tx, err := connectPostgres(t).BeginTx(context.Background(), nil)
	require.NoError(t, err)
	for _, statement := range statements {
		_, err := tx.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	release = sync.OnceFunc(func() { assert.NoError(t, tx.Rollback()) })
	t.Cleanup(release)
	return release
}

// otherCalls are calls that need no row with the ID "locked". They must
// end while that is locked.
func otherCalls(ctx context.Context, store *sqlstore.Store, n int) map[string]func() error {
	id := fmt.Sprint("other ", n)
	return map[string]func() error{
		"save":   func() error { return errors.Join(store.Save(ctx, pending(id+" saved"))...) },
		"update": func() error { _, errs := store.Update(ctx, delivered("updated")); return errors.Join(errs...) },
		"claim": func() error {
			claim := delivery.Claim{Queue: "queue", Status: delivery.StatusPending, Token: id, Now: time.Now(), Lease: time.Microsecond, Limit: 10}
			records, err := store.Claim(ctx, claim)
			if err == nil && (len(records) != 1 || records[0].ID != "free") {
				err = fmt.Errorf("claimed %d records", len(records))
			}
			return err
		},
		"renew": func() error {
			err := store.Renew(ctx, "queue", "mine", time.Now().Add(time.Hour))
			records, errs := store.Get(ctx, "renewed")
			if err = errors.Join(append(errs, err)...); err == nil && time.Until(records[0].DueAt) < time.Minute {
				err = fmt.Errorf("renewed until %s", records[0].DueAt)
			}
			return err
		},
		"purge": func() error { _, err := store.Purge(ctx, "queue", time.Now().Add(-time.Hour), 10); return err },
		"key":   func() error { _, err := store.Keys().Claim(ctx, id, "mine", 0, time.Minute); return err },
		"letter": func() error {
			return store.DeadLetters().Put(ctx, deadEntry(id, 0))
		},
		"job": func() error {
			return store.DeadLetters().DeleteJobs(ctx, id)
		},
	}
}

// lockedCalls are calls that need rows with the ID "locked".
func lockedCalls(ctx context.Context, store *sqlstore.Store) map[string]func() error {
	return map[string]func() error{
		"update": func() error { _, errs := store.Update(ctx, delivered("locked")); return errors.Join(errs...) },
		"key":    func() error { _, err := store.Keys().Claim(ctx, "locked", "mine", 0, time.Minute); return err },
		"letter": func() error {
			_, errs := store.DeadLetters().Claim(ctx, dlq.Claim{Token: "mine", Now: time.Now(), Lease: time.Minute}, "locked")
			return errors.Join(errs...)
		},
	}
}

// Calls that need rows which somebody else keeps locked wait for them. All
// others go on, in the same batch and later.
func TestLockedRowsHoldNobodyElseUp(t *testing.T) {
	prefix := unique(t)
	store := open(t, connectPostgres(t), sqlstore.Config{TablePrefix: prefix, InFlight: 1, Timeout: longer})
	ctx, cancel := context.WithTimeout(t.Context(), eventuallyTimeout)
	defer cancel()
	require.Empty(t, store.Save(ctx, dueRecord("locked", "mine"), dueRecord("free", ""), pending("updated")))
	renewed := pending("renewed")
	renewed.ClaimedBy = "mine"
	require.Empty(t, store.Save(ctx, renewed))
	_, err := store.Keys().Claim(ctx, "locked", "mine", 0, time.Minute)
	require.NoError(t, err)
	require.NoError(t, store.DeadLetters().Put(ctx, deadEntry("locked", 0)))
	release := lock(t, "SELECT FROM "+prefix+"progress WHERE id = 'locked' FOR UPDATE",
		"SELECT FROM "+prefix+"keys WHERE key = 'klocked' FOR UPDATE", "SELECT FROM "+prefix+"dead_letters FOR UPDATE")

	var waiting, others sync.WaitGroup
	held := store.Hold()
	for name, call := range lockedCalls(context.WithoutCancel(ctx), store) {
		for range 3 {
			waiting.Go(func() { assert.NoError(t, call(), name) })
		}
	}
	for n := range 5 {
		for name, call := range otherCalls(ctx, store, n) {
			if name != "claim" { // several at once claim each other's
				others.Go(func() { assert.NoError(t, call(), name) })
			}
		}
	}
	held()
	others.Wait()
	for n := range 5 {
		for name, call := range otherCalls(ctx, store, 5+n) {
			require.NoError(t, call(), name)
		}
	}
	release()
	waiting.Wait()
	records, errs := store.Get(ctx, "locked")
	require.Empty(t, errs)
	assert.Equal(t, delivery.StatusDelivered, records[0].Status)
}

// Calls that need no locked row don't wait for the tries of those that do, even
// if they are set aside, as those with a transaction of their own are.
func TestTriesOfLockedCallsHoldNobodyElseUp(t *testing.T) {
	store, server := openScripted(t)
	mine := pending("renewed")
	mine.ClaimedBy = "mine"
	require.Empty(t, store.Save(t.Context(), mine, pending("locked")))
	trying, release := make(chan struct{}), make(chan struct{})
	var tries atomic.Int32
	server.answers(func(statement string) error {
		if !strings.HasSuffix(statement, "FOR UPDATE OF p") {
			return nil
		}
		switch tries.Add(1) {
		case 1, 2: // by a worker, and when it was set aside
			return stateError("55P03")
		case 3:
			close(trying)
			<-release
		}
		return nil
	})
	updated := make(chan error)
	go func() {
		_, errs := store.Update(context.Background(), delivered("locked"))
		updated <- errors.Join(errs...)
	}()
	<-trying
	ctx, cancel := context.WithTimeout(t.Context(), eventuallyTimeout)
	defer cancel()
	err := store.Renew(ctx, "queue", "mine", time.Now().Add(time.Hour))
	close(release)
	require.NoError(t, <-updated)
	require.NoError(t, err)
}

// A record that is saved in a transaction of the host, which is still open, and
// elsewhere at the same time.
func TestOpenTransactionHoldsNobodyElseUp(t *testing.T) {
	for name, c := range map[string]struct {
		commit bool
		exist  int // of three calls that save it
	}{"committed": {true, 3}, "rolled back": {false, 2}} {
		t.Run(name, func(t *testing.T) {
			db := connectPostgres(t)
			store := open(t, db, sqlstore.Config{TablePrefix: unique(t), InFlight: 1, Timeout: longer})
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			require.Empty(t, store.In(tx).Save(t.Context(), pending("order")))
			var waiting sync.WaitGroup
			answers := make(chan error, 3)
			for range cap(answers) {
				waiting.Go(func() { answers <- errors.Join(store.Save(context.Background(), pending("order"))...) })
			}
			for n := range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), eventuallyTimeout)
				require.Empty(t, store.Save(ctx, pending(fmt.Sprint(n))))
				cancel()
			}
			require.Empty(t, answers, "whether it exists is not known yet")
			if c.commit {
				require.NoError(t, tx.Commit())
			} else {
				require.NoError(t, tx.Rollback())
			}
			waiting.Wait()
			close(answers)
			exist := 0
			for err := range answers {
				if err != nil {
					require.ErrorIs(t, err, delivery.ErrExists)
					exist++
				}
			}
			assert.Equal(t, c.exist, exist)
		})
	}
}

// A call whose caller has gone is not executed any more, and is nobody's
// business: Close does not wait for the lock.
func TestAbandonedCallIsDropped(t *testing.T) {
	prefix := unique(t)
	db := connectPostgres(t)
	store := open(t, db, sqlstore.Config{TablePrefix: prefix, Timeout: longer})
	require.Empty(t, store.Save(t.Context(), pending("locked")))
	release := lock(t, "SELECT FROM "+prefix+"progress FOR UPDATE")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, errs := store.Update(ctx, delivered("locked"))
	require.ErrorIs(t, errs[0], context.DeadlineExceeded)
	require.NoError(t, store.Close())
	release()
	records, errs := open(t, db, sqlstore.Config{TablePrefix: prefix}).Get(t.Context(), "locked")
	require.Empty(t, errs)
	assert.Equal(t, delivery.StatusPending, records[0].Status)
}

func TestLockedForLongerThanTheTimeout(t *testing.T) {
	prefix := unique(t)
	store := open(t, connectPostgres(t), sqlstore.Config{TablePrefix: prefix, Timeout: 2 * time.Second})
	require.Empty(t, store.Save(t.Context(), pending("locked")))
	lock(t, "SELECT FROM "+prefix+"progress FOR UPDATE")
	_, errs := store.Update(t.Context(), delivered("locked"))
	require.ErrorIs(t, errs[0], sqlstore.ErrLocked)
	require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
	require.NotErrorIs(t, errs[0], sqlstore.ErrReadOnly)
	assert.Contains(t, errs[0].Error(), "held the locks for 2")
}

// The server ends the transaction of a store that is cut off in the middle of
// one, and with it the locks.
func TestCutOffStoreLosesItsLocks(t *testing.T) {
	config := sqlstore.Config{TablePrefix: unique(t), Timeout: longer}
	store, other := open(t, connectPostgres(t), config), open(t, connectPostgres(t), config)
	store.SetMaxIdle(200)
	require.Empty(t, other.Save(t.Context(), pending("locked")))
	release := store.Hold("UPDATE " + config.TablePrefix + "progress SET generation = 7 WHERE id = 'locked'")
	_, errs := other.Update(t.Context(), delivered("locked"))
	require.Empty(t, errs)
	records, _ := other.Get(t.Context(), "locked")
	assert.Zero(t, records[0].Generation, "what the other had not committed")
	release()
}
