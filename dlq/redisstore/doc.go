// Package redisstore is a dlq.Store and a dlq.JobStore in Redis 6 or later, or
// Redis Cluster. All processes that use the same server and prefix share it.
//
//	client := redis.NewClient(&redis.Options{Addr: "redis:6379", Password: password, ContextTimeoutEnabled: true})
//	store := redisstore.New(client, redisstore.Config{})
//	if err := store.Check(ctx); err != nil {
//		return err
//	}
//	manager := dlq.NewManager(store, publisher, dlq.Config{})
//
// # How it keeps entries
//
// Each entry is one hash. One sorted set is the index of all of them: by time,
// and by time within each reason, recipient, type, fingerprint and source.
// Beside it there are the counts by reason, type and fingerprint. All keys of a
// store begin with its prefix in braces, which puts them into one slot of a
// cluster.
//
// Each change is one Lua script, which changes entry, index and counts
// together. Redis does all of it or nothing. A process that dies at any moment
// leaves nothing half-done, and there is nothing to repair. (If someone deletes
// an entry's key by hand, the index points to no entry there. List and Purge
// skip that, and mend the part that they read. The counts of Stats stay too
// high by one.)
//
// # What it costs
//
//   - Put takes one round trip for up to 256 entries of up to 4 MiB together. A
//     larger entry takes one by itself. Reading and claiming take as many.
//   - List reads a page in three round trips if it filters by one field,
//     whichever it is. With several fields it asks Redis how many entries fit
//     each within the time range. Then it reads the index of the field that
//     fits the fewest, and filters those entries in chunks of 500. It reads no
//     bodies for that. ctx bounds the whole.
//   - Count and Stats read no entries, except for one error text for each
//     fingerprint that Stats returns. Count by several fields filters as List
//     does.
//   - Purge deletes 256 entries at a time, so that Redis serves others in
//     between.
//   - Bulk replays are JSON in one hash. Storing progress takes one round trip.
//   - An entry takes about 2.4 KB of Redis's memory beside its body, headers
//     and history.
//
// A store is on one node of a cluster. Where that is too little, use several
// stores with different prefixes.
//
// # What Redis has to promise
//
// A dead letter is as durable as Redis makes it: Put returns when Redis has
// answered. For entries to survive a crash, set appendonly to yes, and
// appendfsync to always, because with everysec the writes of about the last
// second can be lost. A failover can lose the last writes that a primary had
// answered.
//
// Redis must not evict entries. Put asks every master for its maxmemory-policy
// until all have answered well once, and returns an *EvictionError otherwise.
// Hosts call Check when they start. When Redis is out of memory, Put is
// dlq.ErrFull and puts nothing, and consumers leave their messages
// unacknowledged. Reading, requeueing, deleting and purging go on working, so
// that there can be room again.
//
// # The client
//
// Any go-redis client will do. It should have ContextTimeoutEnabled, timeouts
// of some seconds at most, and MaxRetries and DialerRetries of 1 or so, because
// go-redis multiplies its timeouts by them. A round trip moves 4 MiB, or one
// entry, within ReadTimeout and WriteTimeout. In any case a call ends with its
// context, and each of its round trips with Config.Timeout. A cluster client
// must not read from replicas (ReadOnly, RouteByLatency, RouteRandomly),
// because their data is older.
//
// What go-redis itself prints to stderr, ClientLog of idempotency/redisstore takes to a
// *slog.Logger. One of them serves all clients of the process.
//
// If an ACL limits the user, it needs the hash, sorted-set, scripting and
// connection commands, DEL, and CONFIG GET or INFO. The keys are ~{barid:dlq}:* by
// default, see Config.Prefix.
//
// A client sends a command again when the answer got lost. That does no harm,
// but it shows: the second answer of Remove and Delete is dlq.ErrNotFound, that
// of Release is dlq.ErrClaimLost, and Purge can count too few. A Put that is
// sent again after someone requeued the entry brings it back. Requeueing it
// once more sends the same generation, which consumers with an idempotency
// store suppress.
//
// # Errors
//
// Those of package dlq, and:
//
//   - ErrUnavailable, as an *UnavailableError: Redis is down, too slow, or
//     refuses. It may have done what it was asked for all the same. The next
//     call tries again.
//   - *EvictionError, which is ErrUnavailable too: see Check.
//   - ErrDamaged: what is stored can't be read.
//   - ErrConfig, from every method: New was given what can't be used.
//
// When the context of a call ends, the error is the context's. Where the store
// knows what has kept it from asking Redis last, a refused connection for
// instance, that is in the error's chain, too. No error shows a password, a body
// or a recipient.
package redisstore
