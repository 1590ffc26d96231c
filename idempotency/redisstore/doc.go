// Package redisstore is an idempotency.Store in Redis 6 or later, or Redis
// Cluster, shared by all processes that use the same server and prefix.
//
// Each key of the store is one string in Redis, and each step is one command or one
// Lua script on it: atomic, in one round trip, and spread over a cluster by the
// key. (As everywhere in Redis Cluster, what is between { and } in a scope or an ID
// decides the slot.) A key takes about 150 to 210 bytes of Redis's memory.
//
// A claim is first a SET with NX and GET, which decides most claims at half of a
// script's cost. What it can't decide, such as a claim made again or a retry, the
// script does in a second round trip. Redis before 7.0 refuses that SET, and from
// then on the store uses the script alone.
//
// On a single server, or one behind Sentinel, the completions of one pipeline are
// one script for up to 256 keys, and each is answered for itself. Where a server
// refuses that, they are sent one by one.
//
// A user whose commands are restricted needs GET, SET, DEL, PEXPIRE, EVAL and
// EVALSHA, and MGET and PSETEX for scripts on many keys. CONFIG GET or INFO tells the
// policy, see below. The keys are those that begin with Config.Prefix: ~barid:* in an
// ACL. The breakers of redisstate are among them by default, and the dead letters of
// dlq/redisstore if their prefix has its braces inside, as in "barid:{dlq}".
//
// Callers share round trips. Calls that are made at about the same time become one
// pipeline. While one is in flight, other calls gather, for at most MaxWait or
// until there are MaxBatch of them. A call is sent at once when nothing is in
// flight. No call waits for longer than its own context, and the end of one call's
// context ends no other call.
//
// # What Redis has to promise
//
// Redis must not evict keys: with any other maxmemory-policy than noeviction they
// vanish silently when memory gets short, and duplicates run. The store asks every
// master for its policy before its first command, and refuses to work with an
// *EvictionError.
//
// A failover can lose the last writes that a primary had acknowledged. Then
// duplicates are possible; loss of messages is not. The same holds for FLUSHALL and
// for a restart without persistence.
//
// When Redis is away, every call fails with an error that matches
// idempotency.ErrUnavailable, and the next call tries again. The store recovers by
// itself and has no state of its own to mend.
//
// # The client
//
// Options and NewClient make a client with settings that suit. It dials for 1 s,
// waits 500 ms each to read, to write and for a free connection, sends a command
// again once, and heeds a context's deadline. Every step may be repeated, so
// commands that are sent again do no harm. The settings of a client that the host
// brings stay as they are. They should have ContextTimeoutEnabled, timeouts well
// below the leases, and MaxRetries and DialerRetries of 1 or so, because go-redis
// multiplies its timeouts by them. The store's Timeout bounds what callers see in
// any case.
//
// go-redis prints what goes wrong with its connections to stderr, for all clients of
// the process. A ClientLog takes that to a *slog.Logger; to set it is up to the host.
//
// # Errors
//
// Steps fail with idempotency.ErrUnavailable and idempotency.ErrLost, as the
// contract of idempotency.Store says. ErrConfig, an *EvictionError, and after Close
// idempotency.ErrClosed are ErrUnavailable as well where a step returns them. The error
// of a step whose context ends is the context's. Where the store knows what has kept
// Redis from being asked last, a refused connection for instance, that is in its chain,
// too. No error shows a password, a key or a token.
package redisstore
