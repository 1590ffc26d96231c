// Package redisstate shares the states of circuit breakers between the
// processes of a fleet through Redis, and lets an operator see and force them.
//
// # Semantics
//
// Each process has its own breaker.Breaker of the same name and a Fleet that
// shares it. Calls ask the breaker alone: Allow costs what it costs without a
// Fleet. Run writes to Redis at once what happened here, and reads once in
// Config.Every what happened elsewhere, for all breakers in one pipeline. The
// processes that share a breaker are its instances.
//
// Open: when one instance's breaker opens, all others open, until the same time.
// One is enough, even if others see nothing but successes, because an instance
// can't tell whether it alone has the trouble; probes tell all of them soon. An
// instance that trips while the fleet is open already joins it, and makes that
// time no longer.
//
// Half-open: one instance at a time has the lease to probe, and lets through
// breaker.Config.Probes calls. The others stay half-open and allow nothing until
// its outcome is known. When it closes, all close; when it opens again, all open.
// The lease is given only to an instance that had to refuse calls, so that an
// idle one does not keep it from the others. It is renewed until the outcome is
// known. It ends by itself when its instance is gone (Config.Lease), and is given
// back when others ask for it and its instance has had nothing to probe with for
// a while; the next one sends probes of its own.
//
// An outcome counts only from an instance that knew the fleet's latest change. An
// instance that was cut off follows what the others found out meanwhile.
//
// An instance that starts follows what it reads first: it opens with the fleet,
// and is half-open if the fleet is. One that calls Sync before its first call
// knows that in time.
//
// # Operators
//
// ForceOpen and ForceClosed hold for all instances, for a time or until Release,
// with a name and a reason. Redis keeps them, so they hold for instances that
// start later as well. What was forced open becomes half-open then, what was
// forced closed becomes closed. View tells what Redis knows. Any process with a
// Fleet can do all of this, without a breaker.
//
// ForceOpen, ForceClosed and Release of a breaker.Breaker are for its instance
// alone. They and the fleet's replace each other: the later one wins. Trip and
// Reset of a breaker are not shared either.
//
// # When Redis is away
//
// An instance that gets no answer within Config.Timeout goes on by itself. Its
// breaker stays in the state that it is in, and a force stays for its time. It
// opens and closes by its own outcomes, and sends its own probes, Probes for each
// such instance. It tries Redis again at longer and longer intervals, up to 15 s.
// When Redis is back, the instance writes what is still true of what happened,
// and follows what it missed. A Redis that comes back empty gets a force and an
// open state again from any instance that runs.
//
// Redis keeps as much as its own settings promise: a failover can lose the last
// writes that it had confirmed, a force among them; View shows what is left. A
// record that Redis evicts is written again, as after a restart.
//
// # Clocks
//
// Redis's clock is the only one that is compared, and instances exchange nothing
// but durations. Instances' clocks may differ by any amount. When Redis's own
// clock is set back or forward, or a failover leads to a server with another
// one, the ends that Redis keeps move by as much. The open state of an instance
// that follows already is not affected. One that joins then may be open for too
// short a time, but for no longer than the time was at first. The end of a force,
// and that of the lease of an instance that is gone, move with the clock.
//
// # Redis
//
// Redis 5 or later, or Redis Cluster. A breaker is one key, Prefix and its name,
// a hash of a few hundred bytes that lives for a day after its last time; one
// that is forced until Release lives until then. Each exchange is one Lua script
// on one key, and safe to repeat. The client should have ContextTimeoutEnabled.
// Without it a Fleet still keeps to its Timeout, but Run may take as long as the
// client's own timeouts to return. What go-redis itself prints to stderr, ClientLog of
// idempotency/redisstore takes to a *slog.Logger.
//
// # Errors
//
// Every error matches ErrUnavailable where Redis was asked and did not answer, or
// ErrConfig, or ErrRunning. Only when the context of a call ends, it is the context's.
// Where the Fleet knows what has kept it from asking Redis last, a refused connection
// for instance, that is in the error's chain, too. Run survives everything but
// ErrConfig. No error shows a password.
//
// The examples show how a process shares its breakers and how an operator's tool
// forces one.
package redisstate
