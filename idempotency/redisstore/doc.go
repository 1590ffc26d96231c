// Package redisstore is an idempotency.Store in Redis 6 or later, or Redis
// Cluster, shared by all processes that use the same server and prefix.
//
// Each key of the store is one string in Redis, and each step one command or Lua
// script on it: atomic, one round trip, and spread over a cluster by the key.
// (What stands between { and } in a scope or an ID decides the slot, as everywhere
// in Redis Cluster.) A key takes about 150 to 210 bytes of Redis's memory.
//
// A claim is a SET with NX and GET first, which settles most of them at half of a
// script's cost. What it can't settle, such as a claim made again or a retry, the
// script does in a second round trip. Redis before 7.0 refuses that SET: from then
// on the store goes by the script alone. On a single server, or one behind
// Sentinel, completions that go in one pipeline are one script, up to 256 of them,
// each answered for itself; where that is refused they go one by one. A user whose
// commands are restricted needs GET, SET, DEL, PEXPIRE, EVAL and EVALSHA, and MGET
// and PSETEX for that.
//
// Callers share round trips: those that call at about the same time go as one
// pipeline, and while one is on its way, the commands of others gather, for at
// most MaxWait or MaxBatch. A lone caller is sent at once. Nobody waits longer
// than for their own context, and nobody's context ends another's command.
//
// # What Redis has to promise
//
// Redis must not evict keys: with any other maxmemory-policy than noeviction
// they vanish silently when memory gets short, and duplicates run. The store
// asks every master once before its first command and refuses with an
// *EvictionError. A failover can lose the last writes that a primary had
// acknowledged: then duplicates are possible, loss of messages is not. The same
// holds for FLUSHALL and for a restart without persistence.
//
// When Redis is away every call fails with an error that matches
// idempotency.ErrUnavailable, and the next call tries again: the store recovers
// by itself and has no state of its own to mend.
//
// # The client
//
// Options and NewClient make a client with settings that suit: it dials for 1 s,
// waits 500 ms each to read, to write and for a free connection, sends a command
// again once, and heeds a context's deadline. Every step may be repeated, so that
// commands sent again do no harm. A host that brings a client of its own keeps
// its settings; it should set ContextTimeoutEnabled, timeouts well below its
// leases, and MaxRetries and DialerRetries of 1 or so, because go-redis multiplies
// its timeouts by them. The store's Timeout bounds what callers see in any case.
//
// # Errors
//
// idempotency.ErrUnavailable and idempotency.ErrLost as the contract of
// idempotency.Store says; ErrConfig and *EvictionError, both of which are
// ErrUnavailable too where a step returns them; idempotency.ErrClosed after
// Close. No error shows a password, a key or a token.
//
// # Usage
//
//	client, err := redisstore.NewClient("redis://user:password@redis:6379/0")
//	...
//	store := redisstore.New(client, redisstore.Config{})
//	defer store.Close()
//	guard := idempotency.NewGuard(store, idempotency.GuardConfig{})
package redisstore
