// Package redisstate shares the states of circuit breakers between the
// processes of a fleet through Redis, and lets an operator see and force them.
//
// # Semantics
//
// Each process has its own breaker.Breaker of the same name and a Fleet that
// shares it. Calls ask the breaker alone: Allow costs what it costs without a
// Fleet. Run writes to Redis what happened here, at once, and reads what
// happened elsewhere once in Config.Every, for all breakers in one pipeline.
//
// Open: when one instance's breaker opens, all others open, until the same time.
// One is enough, even if others see nothing but successes, because an instance
// can't tell whether it is itself the odd one; probes tell all of them soon.
// Whoever trips while the fleet is open already joins it and makes it no longer.
//
// Half-open: one instance at a time has the lease to probe, and lets through
// breaker.Config.Probes calls. The others stay half-open and allow nothing until
// its outcome is known: closed, and all close; open again, and all open. The
// lease is given only to an instance that had to refuse calls, so none is
// wasted on an idle one. It is renewed until the outcome is known, ends by
// itself when its instance is gone (Config.Lease), and is given back when others
// ask for it and its instance has had nothing to probe with for a while; after
// that the next one sends its own probes.
//
// An outcome counts only from an instance that knew the fleet's latest change;
// one that was cut off follows what the others found out meanwhile.
//
// An instance that starts follows what it reads first: it opens with the fleet,
// and is half-open if the fleet is. Sync before the first call has it know that
// in time.
//
// # Operators
//
// ForceOpen and ForceClosed hold for all instances, for a time or until Release,
// with a name and a reason. They stand in Redis, so they hold for instances that
// start later, too. After a force open the fleet is half-open, after a force
// closed it is closed. View tells what Redis knows. Any process with a Fleet can
// do this, without a breaker.
//
// ForceOpen, ForceClosed and Release of a breaker itself are for its instance
// alone; they and the fleet's replace each other, the later one wins. Trip and
// Reset of a breaker are not shared either.
//
// # When Redis is away
//
// An instance that gets no answer within Config.Timeout goes on by itself: its
// breaker stays in the state that it is in, a force stays for its time, it opens
// and closes by its own outcomes, and sends its own probes, Probes for each such
// instance. It tries again later and later, up to 15 s apart, tells what is
// still true of what happened, and follows what it missed. A Redis that comes
// back empty gets back, from any instance that runs, a force and an open state.
//
// Redis keeps as much as its own settings promise: a failover can lose the last
// writes that it had confirmed, a force among them; View shows what is left. A
// record that Redis evicts is written again as after a restart.
//
// # Clocks
//
// Redis's clock is the only one that is compared, and instances exchange nothing
// but durations. Instances' clocks may differ by any amount. When Redis's own
// clock is set back or forward, or a failover leads to a server with another
// one, the times that are running there move by as much: the open state of an
// instance that follows already is not affected, one that joins then may be open
// too short, though no longer than the time was at first, and the end of a force
// and of the lease of an instance that is gone move with the clock.
//
// # Redis
//
// Redis 5 or later, or Redis Cluster. A breaker is one key, Prefix and its name,
// a hash of a few hundred bytes that lives for a day after its last time; one
// that is forced until Release lives until then. Each exchange is one Lua script
// on one key, and safe to repeat. The client should have ContextTimeoutEnabled;
// without it a Fleet still keeps its Timeout, but Run may take as long as the
// client's own timeouts to return.
//
// # Errors
//
// ErrUnavailable where Redis was asked and did not answer, ErrConfig, ErrRunning.
// Run survives everything but ErrConfig. A context's own error is returned bare.
// No error shows a password.
//
// # Usage
//
//	payments := breaker.New(breaker.Config{Name: "payments"})
//	fleet := redisstate.New(client, redisstate.Config{})
//	if err := fleet.Share(payments); err != nil {
//		return err
//	}
//	_ = fleet.Sync(ctx) // so that a force is known from the first call on
//	go fleet.Run(ctx)
//
// and from an operator's tool:
//
//	err := fleet.ForceOpen(ctx, "payments", redisstate.Force{For: time.Hour, By: "nadia", Reason: "maintenance"})
package redisstate
