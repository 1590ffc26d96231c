package redisstore_test

import (
	"context"
	"crypto/sha1" //nolint:gosec // as the store does
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// audit reads everything that a store has in Redis, and fails unless index and
// counts are exactly those of the entries. It knows the stored form by itself,
// so that a change of it is noticed. It returns the ids.
func audit(tb require.TestingT, client redis.UniversalClient, prefix string) []string {
	ctx := context.Background()
	entryPrefix := "{" + prefix + "}:entry:"
	var ids []string
	index := []string{}
	reasons, types, fingerprints := map[string]string{}, map[string]string{}, map[string]float64{}
	add := func(counts map[string]string, value string) {
		n, _ := strconv.Atoi(counts[value])
		counts[value] = strconv.Itoa(n + 1)
	}
	keys := client.Scan(ctx, 0, entryPrefix+"*", 1000).Iterator()
	seen := map[string]bool{}
	for keys.Next(ctx) {
		if seen[keys.Val()] {
			continue
		}
		seen[keys.Val()] = true
		entry, err := client.HGetAll(ctx, keys.Val()).Result()
		require.NoError(tb, err)
		id := strings.TrimPrefix(keys.Val(), entryPrefix)
		ids = append(ids, id)
		require.Len(tb, entry["at"], 16, "place of %q", id)
		index = append(index, "0"+entry["at"]+id)
		for n, field := range []string{"reason", "recipient", "type", "fingerprint", "source"} {
			sum := sha1.Sum([]byte(entry[field])) //nolint:gosec // as the store does
			index = append(index, fmt.Sprint(n+1)+hex.EncodeToString(sum[:8])+entry["at"]+id)
		}
		add(reasons, entry["reason"])
		add(types, entry["type"])
		fingerprints[entry["fingerprint"]]--
	}
	require.NoError(tb, keys.Err())

	members, err := client.ZRange(ctx, "{"+prefix+"}:index", 0, -1).Result()
	require.NoError(tb, err)
	require.ElementsMatch(tb, index, members, "index")
	require.Equal(tb, reasons, client.HGetAll(ctx, "{"+prefix+"}:reasons").Val(), "reasons")
	require.Equal(tb, types, client.HGetAll(ctx, "{"+prefix+"}:types").Val(), "types")
	groups := map[string]float64{}
	for _, group := range client.ZRangeWithScores(ctx, "{"+prefix+"}:fingerprints", 0, -1).Val() {
		groups[group.Member.(string)] = group.Score
	}
	require.Equal(tb, fingerprints, groups, "fingerprints")
	return ids
}

// requireAudit also wants these entries and no others.
func requireAudit(tb testing.TB, client redis.UniversalClient, prefix string, ids ...string) {
	tb.Helper()
	require.ElementsMatch(tb, ids, audit(tb, client, prefix))
}
