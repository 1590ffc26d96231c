// Package redisstore is a dlq.Store in Redis 6 or later, or Redis Cluster,
// shared by all processes that use the same server and prefix.
//
// # How it keeps entries
//
// Each entry is one hash. One sorted set is the index of all of them: by time,
// and by time within each reason, recipient, type, fingerprint and source. Counts
// by reason, type and fingerprint are kept beside it. All keys of a store begin
// with its prefix in braces, which puts them into one slot of a cluster.
//
// Each change is one Lua script, which changes entry, index and counts together:
// Redis does all of it or nothing. A process that dies at any moment leaves
// nothing half-done, and there is nothing to repair or to sweep up. (Somebody
// who deletes an entry's key by hand leaves the index pointing nowhere; List and
// Purge skip that, and mend the part that they read. The counts of Stats stay
// too high by one.)
//
// # What it costs
//
//   - Put takes one round trip for up to 256 entries of up to 4 MiB together;
//     an entry that is larger goes alone. So do reading and claiming.
//   - List reads a page in three round trips, whichever single field it filters
//     by. With several fields it asks Redis how many entries fit each within the
//     time range, takes the index that fits the fewest, and filters those in
//     chunks of 500 by what the filter looks at, not by bodies. Its context
//     bounds the whole.
//   - Count and Stats read no entries, but for one error text for each
//     fingerprint that Stats tells; a Count by several fields at once filters
//     as List does.
//   - Purge deletes 256 entries at a time, so that it holds nobody up for long.
//   - Bulk replays are JSON in one hash. Storing progress takes one round trip.
//   - An entry takes about 2.4 KB of Redis's memory beside its body, headers and
//     history.
//
// A store lives on one node of a cluster. Where that is too little, use several
// stores with different prefixes.
//
// # What Redis has to promise
//
// A dead letter is as durable as Redis makes it, and Put returns when Redis has
// answered. So that what it answered outlives a crash, set appendonly yes, and
// appendfsync always, because with everysec the last second or so of writes can
// be lost. A failover can lose the last writes that a primary had answered.
//
// Redis must not evict entries. Put asks every master for its maxmemory-policy
// until one answer was good, and refuses with an *EvictionError; hosts that start
// up call Check. When Redis is out of memory, Put is dlq.ErrFull and puts
// nothing, and consumers leave their messages unacknowledged; reading, requeueing,
// deleting and purging work on, so that there can be room again.
//
// # The client
//
// Any go-redis client will do. It should have ContextTimeoutEnabled, and timeouts
// of some seconds at most, with MaxRetries and DialerRetries of 1 or so, because
// go-redis multiplies its timeouts by them; a round trip moves 4 MiB, or one
// entry, within ReadTimeout and WriteTimeout. A context's end and Config.Timeout
// bound what callers see in any case. A cluster client must not read from
// replicas (ReadOnly, RouteByLatency, RouteRandomly): they lag behind.
//
// A user whom Redis limits by an ACL needs the hash, sorted-set, scripting and
// connection commands, DEL, and CONFIG GET or INFO.
//
// A client sends a command again when its answer got lost. That does no harm,
// but shows: Remove and Delete are then dlq.ErrNotFound and Release is
// dlq.ErrClaimLost, though it was this call that did it, and Purge can count too
// few. A Put that is sent again after somebody requeued the entry brings it
// back; requeueing it once more sends the same generation, which consumers with
// an idempotency store suppress.
//
// # Errors
//
// Those of package dlq, and:
//
//   - ErrUnavailable, as an *UnavailableError: Redis is away, too slow, or
//     refuses. What was asked for may have been done all the same. The next call
//     tries again, there is nothing to reset.
//   - *EvictionError, which is ErrUnavailable too: see Check.
//   - ErrDamaged: what is stored can't be read.
//   - ErrConfig, from every method, when New was given what can't be used.
//
// A context's error comes bare. No error shows a password, a body or a
// recipient.
//
// # Usage
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", Password: password, ContextTimeoutEnabled: true})
//	store := redisstore.New(client, redisstore.Config{})
//	if err := store.Check(ctx); err != nil {
//		return err
//	}
//	manager := dlq.NewManager(store, publisher, dlq.Config{})
package redisstore
