package sqlstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// A claim reads what it takes from the index, priority by priority, in order:
// it sorts nothing, and does not read what waits for later.
func TestClaimsUseTheIndex(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		fill(t, store, 2000, time.Now())
		claim := delivery.Claim{Queue: "queue", Status: delivery.StatusRetrying, Token: "me", Now: time.Now(), Limit: 100}
		byPriority, dueFirst, err := store.ExplainClaim(t.Context(), claim)
		require.NoError(t, err)
		for _, plan := range []string{byPriority, dueFirst} {
			require.Equal(t, 4, strings.Count(plan, store.Prefix()+"progress_due"), plan)
			require.NotContains(t, plan, "Seq Scan")
		}
		for _, sorts := range []string{"Sort", "TEMP B-TREE"} {
			require.NotContains(t, byPriority, sorts)
			require.LessOrEqual(t, strings.Count(dueFirst, sorts), 4, dueFirst) // of what it has found
		}
	})
}
